"""Decoders: language models with a key-value cache, from their weights to the canonical decoder ONNX.

Data flow from a source's configuration (``config.DecoderConfig``) and weights (``weights.DecoderWeights``)
through an architecture's table of weight names (``architectures``) to ONNX (``export``):

    from assay.models.decoders.config import config_from_gguf, config_from_hf
    from assay.models.decoders.export import export_decoder
    from assay.models.decoders.mapping import Naming

    config = config_from_hf(json_object)              # of config.json
    config = config_from_gguf(key_values)             # key -> value; vocabulary from tokenizer.ggml.tokens
    export_decoder(config, weights, Path("model.onnx"), naming=Naming.HF)  # or Naming.GGUF
    spec = config.spec(bos_id=1, eos_ids=(2,), tokenizer=Path("tokenizer.json"))  # ``ModelSpec.decoder``
"""
