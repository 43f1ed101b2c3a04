"""Texts for the tests of the integrations: short facts on three topics."""

FACTS = {
    "stars": "The Sun is one of many stars in the Milky Way.",
    "bread": "Knead the dough for ten minutes, then let it rise.",
    "football": "The striker scored twice in the second half.",
    "planets": "Jupiter is the largest planet of our solar system.",
    "soup": "Simmer the vegetables until they are soft.",
    "tennis": "She won the match after a long tie-break.",
}
TEXTS, TOPICS = list(FACTS.values()), ["space", "food", "sport"] * 2
