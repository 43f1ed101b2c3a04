"""Engines: token ids in, vectors out. An engine reads no text and no files. Read in this order:

    protocol.py       the interface of every engine
    registry.py       the list of the engines
    numpy.py          the engine that runs `reference.py`
    blas.py           small matrices on one thread of BLAS
    float_mode.py     the standard float mode of the calling thread, in which a model is loaded
    doubles.py        functions of float64 arrays with the same bits everywhere, for the numbers after a pass
    classifier.py     the head of a cross-encoder, for all engines
    dense.py          a Dense module after the pooling, for engines of compiled kernels
    products.py       the dense products of a layer, which engines with packed weights share
    runtime/          code that compiled engines share: vector instructions, compilation, the code cache, helper threads
    prebuilt/         kernels that were compiled in advance, and the command that builds them
    float32/          the float32 engine, and the numerical contract that it implements
    integer/          the integer engine, compute types int16 and int8, and its contracts
    weights_cache.py  packed weights of published models on disk

To add an engine, write a package of kernels with a module `entry`, and let `runtime.entries.load_entries` load it.
"""
