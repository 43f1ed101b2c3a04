"""Engines: token ids in, vectors out. Read in this order:

protocol.py     what every engine offers, and the engine that runs `reference.py`
products.py     the dense products of a layer, which all engines with packed weights share
runtime/        what compiled engines share: vector instructions, compilation, the code cache, helper threads
float32/        the float32 engine, and the numerical contract that it implements
"""
