"""Decoders: language models with a key-value cache, from their weights to the canonical decoder ONNX.

Data flow from a source's configuration and weights (``weights.DecoderWeights``) through an architecture's
table of weight names (``architectures``) to ONNX (``export``):

    from assay.models.decoders.export import export_decoder
    from assay.models.decoders.interface import decoder_inputs, representative_inputs
    from assay.models.decoders.mapping import Naming
    from assay.models.decoders.read_config import config_from_gguf, config_from_hf

    config = config_from_hf(json_object)                      # of config.json
    config = config_from_gguf(key_values, weights.names())    # values as ``ReaderField.contents()``
    export_decoder(config, weights, Path("model.onnx"), naming=Naming.HF)  # or Naming.GGUF
    spec = config.spec(bos_id=1, eos_ids=(2,), tokenizer=Path("tokenizer.json"))  # ``ModelSpec.decoder``
    decoder_inputs(config)              # ``ModelSpec.inputs`` of the canonical ONNX
    representative_inputs(config)       # ``ModelSpec.representative_inputs``
"""
