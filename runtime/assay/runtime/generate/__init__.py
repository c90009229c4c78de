"""Text from compiled decoders: paged cache, sampling, speculation, tokens and chats.

::

    import assay.runtime

    model = assay.runtime.load_decoder("smollm2-135m.assay", context=2048)
    for piece in model.generate("The sea is", max_new_tokens=64):
        print(piece.text, end="")
"""
