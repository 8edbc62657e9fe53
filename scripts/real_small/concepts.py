"""What a picture shows, by the words that people wrote about it: titles, keywords, captions and folder names.

The words are labels by people. That several words stand for one concept is our choice: `duck` is a bird.
"""

import re
from collections.abc import Collection

WORDS = {
    "bird": "bird birds duck eagle owl penguin parrot swan goose flamingo seagull crow rooster chicken turkey pigeon "
    "heron pelican peacock peahen rosella finch robin sparrow toucan hen aquila acquila cigno tux",
    "dog": "dog dogs puppy",
    "cat": "cat cats kitten feline lion tiger cheetah leopard gatto tigre",
    "fish": "fish crawfish shark goldfish dolphin whale orca",
    "insect": "insect insects bee butterfly fly ant beetle ladybug mosquito moschito dragonfly spider grasshopper",
    "horse": "horse horses pony zebra donkey cavallo",
    "bear": "bear bears teddy panda",
    "flower": "flower flowers rose tulip daffodil sakura orchid anthurium lily sunflower daisy",
    "tree": "tree trees evergreen palm pine oak",
    "fruit": "fruit apple apples pear orange lemon lime banana grapes strawberry cherry pineapple peach apricot",
    "vegetable": "vegetable vegetables vegitable tomato pepper potato carrot broccoli lettuce pumpkin corn squash",
    "cake": "cake cakes muffin pie cupcake",
    "ice cream": "icecream",
    "glass": "glass beverage drink juice wine beer milk",
    "house": "house houses home homes cottage hut",
    "boat": "boat boats ship sailboat sailing canoe",
    "car": "car cars automobile hummer",
    "truck": "truck bus tractor dumper",
    "airplane": "airplane plane aircraft helicopter airtravel jet",
    "hat": "hat hats cap",
    "ball": "ball balls football basketball soccer volleyball",
    "book": "book books",
    "music": "music guitar trumpet drum cello violin piano flute harp musical instrument",
    "phone": "phone telephone",
    "person": "man woman boy girl person people",
}
"""Concept -> words that stand for it."""
_OF_WORD = {word: concept for concept, words in WORDS.items() for word in words.split()}
NAMES = tuple(WORDS)
_UNCOUNTABLE = ("fruit", "music")


def concepts(texts: Collection[str]) -> set[str]:
    """The concepts that texts about a picture name.

    Args:
        texts: Title, keywords, folder.
    """
    words = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
    found = {_OF_WORD[word] for word in words & _OF_WORD.keys()}
    return found | {"ice cream"} if {"ice", "cream"} <= words else found


def presence_question(concept: str) -> str:
    """A yes/no question."""
    if concept in _UNCOUNTABLE:
        return f"Is there any {concept} in the picture?"
    article = "an" if concept[0] in "aeiou" else "a"
    return f"Is there {article} {concept} in the picture?"
