"""Training: the encoder fine-tuned, or made, by contrast; forward and backward by hand.

Reading order: `backward.py` (beside `../reference.py`: the same operations, their gradients), `dropout.py` (what is
left out, as a function of its place), `loss.py` (what is minimised), `optim.py` (how the weights follow the gradient);
`data.py` and `sampling.py` (what a batch is made of); `loop.py` with `checkpoints.py`, `log.py` and `interrupts.py` (a
run from start to end, in as many sittings as it takes). The fast half: `engine.py`, `kernels/`. `scratch.py` makes a
model to begin with.
"""
