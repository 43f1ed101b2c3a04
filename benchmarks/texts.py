"""Texts for the benchmarks.

For measuring time: common English words in a random but fixed order, with a given number of tokens. For measuring
accuracy: paragraphs of the language reference that Python brings with it, so that every machine has them.
"""

import csv
import itertools
import random
import re
from pathlib import Path

# Each word is one token of the published vocabulary, so a text has one token per word, and [CLS] and [SEP].
WORDS = (
    "a about after again air all along also always an and animal another answer any around as ask at away back be "
    "because been before began being below between book both boy but by call came can car city close cold come country "
    "cut day did different do does door down each earth east eat end enough even every example eye face family far "
    "father feet few find fire first fish follow food for form found four from girl give go good great group grow had "
    "half hand hard has have he head hear help her here high him his home horse hour house how if important in is it "
    "its just keep kind king know land large last late learn left let letter life light like line list little live "
    "long look made make man many map mark may me mean men might mile more most mother mountain move much music must "
    "my name near need never new next night no north not note now number of off often old on once one only open or "
    "order other our out over own page paper part people picture place plan plant play point press problem question "
    "quick read ready real red rest right river road rock room round run said same saw say school science sea second "
    "see seem sentence set several she ship short should show side since sing sit six size sleep slow small so some "
    "song soon sound south stand star start state step still stop story study such sun sure table take talk tell ten "
    "than that the them then there these they thing think this those three through time to together too took top town "
    "travel tree true try turn two under unit until up upon us use very voice wait walk want war warm was watch water "
    "way we week well went were west what wheel when where which while white who whole why will wind with wood word "
    "work world would write year you young your"
).split()


def text(n_tokens: int, generator: random.Random) -> str:
    """Return a text of `n_tokens` tokens, [CLS] and [SEP] included."""
    return " ".join(generator.choices(WORDS, k=n_tokens - 2))


def mixed(n_texts: int, shortest: int, longest: int, seed: int = 0) -> list[str]:
    """Return texts whose lengths are spread evenly over a range, in random order."""
    generator = random.Random(seed)
    return [text(generator.randint(shortest, longest), generator) for _ in range(n_texts)]


def short_sentences(n_texts: int, seed: int = 0) -> list[str]:
    """Return sentences of 5 to 40 tokens, 13.894 on average: about the lengths of the STS benchmark."""
    generator = random.Random(seed)
    lengths = [round(generator.lognormvariate(2.55, 0.4)) for _ in range(n_texts)]
    return [text(length, generator) for length in _fitted(lengths, 5, 40, 13.894, generator)]


def mostly_short(n_texts: int, seed: int = 0) -> list[str]:
    """Return texts of 5 to 256 tokens, 79.8625 on average; longer ones are rarer, as with paragraphs."""
    generator = random.Random(seed)
    lengths = [5 + round(251 * generator.random() ** 2.35) for _ in range(n_texts)]
    return [text(length, generator) for length in _fitted(lengths, 5, 256, 79.8625, generator)]


def _fitted(lengths: list[int], shortest: int, longest: int, mean: float, generator: random.Random) -> list[int]:
    """Return the lengths within the bounds, with random ones changed by 1 until the mean is exact."""
    fitted = [min(max(length, shortest), longest) for length in lengths]
    missing = round(mean * len(lengths)) - sum(fitted)
    while missing:
        number, step = generator.randrange(len(fitted)), 1 if missing > 0 else -1
        if shortest <= fitted[number] + step <= longest:
            fitted[number] += step
            missing -= step
    return fitted


def paragraphs(n_texts: int, half: int, seed: int = 0) -> list[str]:
    """Return texts of one half (0 or 1) of the paragraphs of Python's language reference, in a fixed random order.

    Every other text is several paragraphs: 1 to 230 words, and what is left of the last paragraph. The texts depend on
    the version of Python.
    """
    from pydoc_data.topics import topics

    texts = (" ".join(text.split()) for name in sorted(topics) for text in re.split(r"\n\s*\n", topics[name]))
    every = dict.fromkeys(text for text in texts if text[:1].isalpha() and text[-1] in ".:" and len(text) > 20)
    pool, generator = sorted(every)[half::2], random.Random(seed)
    generator.shuffle(pool)
    following, found = itertools.cycle(pool), []
    for number in range(n_texts):
        text, size = next(following), generator.randint(1, 230) if number % 2 else 1
        while len(text.split()) < size:
            text += " " + next(following)
        found.append(text)
    return found


def read_pairs(path: Path) -> tuple[list[float], list[str], list[str]]:
    """Return the columns score, sentence1 and sentence2 of a .tsv of sentence pairs."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [float(row["score"]) for row in rows], [row["sentence1"] for row in rows], [row["sentence2"] for row in rows]
