"""Contrastive training of sentence encoders, with forward and backward passes written by hand.

To fine-tune the published model on pairs of texts:

    from minilm_np import SentenceEncoder
    from minilm_np.train.data import open_data
    from minilm_np.train.loop import TrainingOptions, train

    data = open_data("pairs.jsonl", batch_size=64)  # each line is ["a text", "its partner"]
    result = train(SentenceEncoder(backend="numpy"), data, "trained", TrainingOptions(steps=150))
    print(result.loss, SentenceEncoder("trained/model").encode("a text").shape)

`../docs/train.md` is the manual's page about training. The files of this package, in reading order:

1. The mathematics, in NumPy
    - `backward.py`: the gradient of each operation of `../reference.py`; read the two side by side
    - `dropout.py`: dropout, with masks that are functions of the seed, the step and the place
    - `loss.py`: the contrastive loss and its gradient
    - `optim.py`: AdamW, clipping of gradients, and schedules of the learning rate
2. The data
    - `data.py`: files of pairs or triplets of texts, and mixes of files
    - `sampling.py`: the samples of each batch
3. A run
    - `loop.py`: one run from start to end: the options, the steps, the evaluations
    - `checkpoints.py`: the folders from which a run can be resumed
    - `log.py`: the log, one line per step
    - `chart.py`: the chart of the loss
    - `interrupts.py`: Ctrl-C, delayed to the end of a step
    - `scratch.py`: new models: a learned vocabulary and random weights
4. The fast engine, in Numba, whose twin is in `backward.py`
    - `engine.py`: both passes over a ragged batch, on several threads
    - `ragged.py`: chunks of a batch, and pooling
    - `dense_layers.py`: packed weights and gradients of the linear layers
    - `kernels/`: the compiled kernels, one file per operation
"""
