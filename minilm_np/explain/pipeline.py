"""The first part of the page of a text: the pipeline as a diagram of steps."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minilm_np import pages
from minilm_np.explain.source import lines_of
from minilm_np.explain.steps import LAYER, Step, embedding_steps, final_steps
from minilm_np.pages import Html, Section, element
from minilm_np.trace import Trace, dimensions

if TYPE_CHECKING:
    from minilm_np.explain.text import TextExplanation

AXES = {"T": "tokens", "D": "dimension", "F": "feature"}


def pipeline(explanation: "TextExplanation") -> Section:
    """Return the section that shows every step as a diagram; each step opens to its numbers and its code."""
    found, config = explanation.trace, explanation.config
    L = config.num_hidden_layers
    choice = pages.component(
        "choice",
        names=["layer", "input"],
        label="Show the numbers of",
        titles=[f"layer {number}" for number in range(L)],
    )
    final = final_steps(config, explanation.added)
    layers = "One layer" if L == 1 else f"{L} layers, one after another"
    diagram = element(
        "ol",
        _box("Text", f"{len(found.text):,} characters"),
        _box("Tokens", f"T = {len(found.tokens)} word pieces, each with an id below V = {config.vocab_size:,}"),
        _group("Embeddings", "Each token id becomes a vector of D numbers.", embedding_steps(config), found),
        _group(layers, "Attention moves information between tokens. The feed-forward part works on each token alone. "
               "All layers compute the same steps, with different weights.", LAYER, found, choice),
        _group("Sentence vector", "The vectors of all tokens become one.", final, found),
        class_="pipeline",
    )  # fmt: skip
    return Section(
        "pipeline",
        "The pipeline",
        "Every step from the characters to the vector. Open a step to see its formula, the code that computes it, and "
        "its input and output with this text's numbers.",
        [_facts(explanation), diagram, pages.component("selection-bar", axis="tokens")],
    )


def _facts(explanation: "TextExplanation") -> Html:
    config = explanation.config
    return pages.facts(
        {
            "Model": explanation.trace.model.rpartition("/")[2],
            "Layers L × heads H": f"{config.num_hidden_layers} × {config.num_attention_heads}",
            "Hidden size D": str(config.hidden_size),
            "Head size E = D / H": str(config.hidden_size // config.num_attention_heads),
            "Feed-forward size F": str(config.intermediate_size),
            "Pooling": config.pooling_mode + (", normalised" if config.normalize else ""),
        }
    )


def _box(title: str, content: str) -> Html:
    return element("li", element("div", element("strong", title), Html(" &nbsp; "), content, class_="box"))


def _group(title: str, introduction: str, steps: Sequence[Step], found: Trace, *before: str) -> Html:
    """Steps with an arrow from each to the next. Steps that read the same arrays stand together, without arrows."""
    stages = [list(stage) for _, stage in itertools.groupby(steps, key=lambda step: step.inputs)]
    rows = (
        element("li", *(_step(step, found) for step in stage), class_="parallel" if len(stage) > 1 else "single")
        for stage in stages
    )
    content = (element("h3", title), element("p", introduction), *before, element("ol", *rows))
    return element("li", element("div", *content, class_="group"))


def _step(step: Step, found: Trace) -> Html:
    summary = element(
        "summary",
        element("span", step.title, class_="name"),
        element("span", step.formula, class_="formula"),
        element("span", _shape(step.output, found), class_="shape"),
    )
    code = []
    for excerpt in lines_of(step.output.replace("{layer}", "0")):
        lines = f"line {excerpt.first}" if excerpt.first == excerpt.last else f"lines {excerpt.first} to {excerpt.last}"
        name = f"reference.py, {lines}"
        code += [
            pages.paragraph(name, class_="note"),
            element("pre", element("code", excerpt.code.rstrip()), tabindex="0", role="region", aria_label=name),
        ]
    inside = element(
        "div",
        pages.paragraph(step.meaning),
        pages.component("statistics", arrays=[*step.inputs, step.output]),
        *(_heat_map("Input", name, found) for name in step.inputs),
        _heat_map("Output", step.output, found),
        element("h4", "The code"),
        *code,
        class_="inside",
    )
    return element("details", summary, inside, class_="step")


def _shape(name: str, found: Trace) -> str:
    """Dimension letters and sizes, such as "T D = 9 × 384"."""
    name = name.replace("{layer}", "0").replace("{input}", "embeddings.LayerNorm")
    return f"{found.dimensions[name]} = {' × '.join(map(str, found[name].shape))}"


def _heat_map(role: str, name: str, found: Trace) -> Html:
    letters = dimensions(name).split() if name != "{input}" else ["T", "D"]
    rows, columns = ("", "D") if letters == ["D"] else letters[-2:]
    return pages.heat_map(
        name,
        title=f"{role}: {name}, {_shape(name, found)}",
        rows=AXES.get(rows, "vector"),
        columns=AXES[columns],
        scale="sequential" if name.endswith(".probs") else "diverging",
        labels=["from", "to", "value"] if len(letters) == 3 else ["token", AXES[columns], "value"],
    )
