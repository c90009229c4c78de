"""Where decoder models are read from: GGUF files, Hugging Face folders and local hub directories.

A source opens as one of the readers that satisfy ``assay.models.decoders.weights.DecoderWeights``
(``gguf_weights.GgufWeights``, ``hf_weights.FolderWeights``); its text side is a ``text.TextSide``. Files are
untrusted: headers are checked before anything is allocated for what they claim.
"""
