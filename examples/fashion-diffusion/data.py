"""Pictures and prompts: Fashion-MNIST, recoloured, with a sentence that says what was done.

A training pair is a 32 x 32 colour picture and its prompt, such as "a red sneaker on white
background". The grey pictures come from Debian's package dataset-fashion-mnist (MIT licence).
"""

import gzip
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

DATASET = Path("/usr/share/datasets/fashion-mnist")

COLOURS = {
    "red": (220, 30, 30),
    "orange": (240, 140, 20),
    "yellow": (235, 215, 30),
    "green": (30, 160, 60),
    "teal": (20, 170, 170),
    "blue": (40, 70, 220),
    "purple": (140, 50, 190),
    "pink": (245, 120, 180),
    "brown": (130, 80, 40),
    "black": (35, 35, 35),
}
BACKGROUNDS = {"white": (250, 250, 250), "gray": (150, 150, 150), "cream": (245, 230, 200)}
# The order of the data set's labels 0 to 9.
ITEMS = ["t-shirt", "trousers", "pullover", "dress", "coat",
         "sandal", "shirt", "sneaker", "bag", "boot"]

# A token's id is its place in this list; vocab.txt holds the same words, one a line.
VOCAB = ["<pad>", "<bos>", "<eos>", "a", "on", "background", *COLOURS, *BACKGROUNDS, *ITEMS]
TOKENS = 10  # tokens of every prompt, padding included

_ID = {word: i for i, word in enumerate(VOCAB)}
_COLOUR_NAMES, _BACKGROUND_NAMES = list(COLOURS), list(BACKGROUNDS)
_COLOUR_RGB = torch.tensor(list(COLOURS.values())) / 255
_BACKGROUND_RGB = torch.tensor(list(BACKGROUNDS.values())) / 255


def tokenize(prompt):
    """Return `prompt` as TOKENS ids: <bos>, one a word, <eos>, padding.

    The empty prompt is the unconditional one of classifier-free guidance. Raises KeyError for a
    word outside VOCAB and ValueError for more than TOKENS - 2 words.
    """
    ids = [_ID["<bos>"], *(_ID[word] for word in prompt.split()), _ID["<eos>"]]
    if len(ids) > TOKENS:
        raise ValueError(f"at most {TOKENS - 2} words: {prompt!r}")
    return ids + [_ID["<pad>"]] * (TOKENS - len(ids))


def prompt_for(item, colour=None, background=None):
    """Return the prompt for indices into ITEMS, COLOURS and BACKGROUNDS; None leaves one out."""
    words = ["a"]
    if colour is not None:
        words.append(_COLOUR_NAMES[colour])
    words.append(ITEMS[item])
    if background is not None:
        words += ["on", _BACKGROUND_NAMES[background], "background"]
    return " ".join(words)


def load(split="train"):
    """Return (pictures uint8 [n, 32, 32], items int64 [n]) of "train" (60,000) or "t10k" (10,000).

    The data set's 28 x 28 pictures get a black border of two pixels.
    """
    with gzip.open(DATASET / f"{split}-images-idx3-ubyte.gz") as f:
        grey = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(DATASET / f"{split}-labels-idx1-ubyte.gz") as f:
        items = np.frombuffer(f.read(), np.uint8, offset=8).astype(np.int64)
    return F.pad(torch.tensor(grey), (2, 2, 2, 2)), torch.from_numpy(items)


def recolour(grey, colour, background):
    """Paint uint8 [n, 32, 32] pictures; colour and background are int64 [n] indices.

    Returns float32 [n, 3, 32, 32] in -1...1. Where the grey picture is dark the background shows;
    elsewhere its brightness shades the colour.
    """
    light = (grey.float() / 255)[:, None]
    opacity = (light * 5).clamp(0, 1)
    paint = _COLOUR_RGB[colour][:, :, None, None] * (0.45 + 0.55 * light) + 0.18 * (light - 0.5)
    ground = _BACKGROUND_RGB[background][:, :, None, None]
    return 2 * (ground * (1 - opacity) + paint.clamp(0, 1) * opacity) - 1


def draw_batch(pictures, items, size):
    """Draw `size` training pairs with random colours.

    Returns images float32 [size, 3, 32, 32] in -1...1, tokens int64 [size, TOKENS], and the truth
    int64 [size, 3]: item, colour, background. Of the prompts 10 % are empty (for guidance), 7 %
    name the item only and 13 % leave the background out, so that short prompts work too.
    """
    rows = torch.randint(len(pictures), (size,))
    truth = torch.stack([items[rows], torch.randint(len(COLOURS), (size,)),
                         torch.randint(len(BACKGROUNDS), (size,))], 1)
    prompts = []
    for (item, colour, background), r in zip(truth.tolist(), torch.rand(size).tolist()):
        if r < 0.10:
            prompts.append("")
        elif r < 0.17:
            prompts.append(prompt_for(item))
        elif r < 0.30:
            prompts.append(prompt_for(item, colour))
        else:
            prompts.append(prompt_for(item, colour, background))
    images = recolour(pictures[rows], truth[:, 1], truth[:, 2])
    return images, torch.tensor([tokenize(p) for p in prompts]), truth
