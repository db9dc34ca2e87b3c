#!/usr/bin/python3
"""Train the language model on Debian's translated manual pages; standard library only.

    train.py [--debs DIR] [--out FILE]

Fetches what DIR lacks of the packages manpages-* with `apt-get download` (about 15 MB; nothing is
installed; needs a fresh `apt-get update`), writes the weights to FILE (default ../1/weights.json)
and prints how often they are right on pages they were not trained on and on the sentences of
everyday.tsv.
"""

import argparse
import gzip
import io
import json
import math
import re
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "1"))

from model import LanguageModel, trigrams, words  # noqa: E402  (the folder of the version)

PACKAGES = {
    "cs": "manpages-cs", "da": "manpages-da", "de": "manpages-de", "en": "manpages-dev",
    "es": "manpages-es", "fi": "manpages-fi", "fr": "manpages-fr", "hu": "manpages-hu",
    "it": "manpages-it", "nl": "manpages-nl", "pl": "manpages-pl", "pt": "manpages-pt-br",
    "ru": "manpages-ru", "sv": "manpages-sv", "uk": "manpages-uk",
}
TRIGRAMS_KEPT = 4000   # the most frequent ones of a language
WORD_COUNT_MAX = 100   # a word counts at most this often: or "file" would weigh like "the"
LETTERS_MIN = 40       # of a paragraph; shorter ones are mostly names and options
TEST_LENGTHS = (20, 40, 80, 160)  # characters


def fetch(debs):
    """Download the packages that the folder `debs` lacks, each to debs/NAME_*.deb."""
    missing = [p for p in PACKAGES.values() if not list(debs.glob(f"{p}_*.deb"))]
    if missing:
        print("downloading", *missing)
        subprocess.run(["apt-get", "download", "-qq", *missing], cwd=debs, check=True)


def pages(deb):
    """Yield (page, roff source) of every manual page in a package, page as in "ls.1"."""
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as files:
        for member in files:
            if member.isfile() and re.search(r"/man\d\w*/[^/]+\.gz$", member.name):
                source = gzip.decompress(files.extractfile(member).read())
                yield Path(member.name).stem, source.decode("utf-8", "replace")


def paragraphs(source):
    """Return the prose paragraphs of a manual page as plain text.

    Leaves out comments, literal blocks (examples, tables), headings and words in bold or italics,
    which are names of options and files in any language.
    """
    result, lines, literal = [], [], False
    for line in source.split("\n") + [""]:
        if line.startswith((".", "'")) or not line.strip():
            macro = line[1:].split(None, 1)[0] if line[1:].split() else ""
            if macro in ("nf", "EX", "TS"):
                literal = True
            elif macro in ("fi", "EE", "TE"):
                literal = False
            text = " ".join(lines)
            if sum(map(str.isalpha, text)) >= LETTERS_MIN:
                result.append(text)
            lines = []
        elif not literal:
            line = re.sub(r"\\f[BI].*?(\\f[RP]|$)", " ", line)
            line = re.sub(r"\\f.|\\\(..|\\\[[^]]*\]|\\[&|^%:,/]", "", line.replace("\\-", "-"))
            lines.append(re.sub(r"\S*[/@_=\\]\S*", " ", line))
    return result


def read(debs):
    """Return {language: {page: [paragraph, ...]}}, without the paragraphs of more than one page.

    Those are licences and the like, half English, and would be trained on and tested alike.
    """
    corpus = {}
    for language, package in PACKAGES.items():
        by_page = {page: set(paragraphs(source))
                   for page, source in pages(next(debs.glob(f"{package}_*.deb")))}
        seen = Counter(p for texts in by_page.values() for p in texts)
        corpus[language] = {page: sorted(p for p in texts if seen[p] == 1)
                            for page, texts in sorted(by_page.items())}
    return corpus


def part(page):
    """Return the part a page belongs to in every language: 3/5 train, 1/5 tune, 1/5 test."""
    return ("train", "train", "train", "tune", "test")[zlib.crc32(page.encode()) % 5]


def choose(corpus, wanted):
    """Return {language: [paragraph, ...]} of the pages in the part `wanted`."""
    return {language: [p for page, texts in by_page.items() if part(page) == wanted for p in texts]
            for language, by_page in corpus.items()}


def count(texts):
    """Return the TRIGRAMS_KEPT most frequent trigrams of `texts`: {trigram: times in a million}."""
    found = Counter()
    for word, n in Counter(w for text in texts for w in words(text)).items():
        for trigram in trigrams(word):
            found[trigram] += min(n, WORD_COUNT_MAX)
    total = sum(found.values())
    return {t: round(1e6 * n / total) for t, n in found.most_common(TRIGRAMS_KEPT)}


def fit(texts):
    """Return {language: {trigram: times in a million}} for {language: [paragraph, ...]}.

    Parts of translated pages are still English; a first model finds them, a second learns without.
    """
    first = LanguageModel({language: count(t) for language, t in texts.items()}, 1.0)
    return {language: count(without_english(first, language, t)) for language, t in texts.items()}


def without_english(model, language, texts):
    """Return the `texts` of a language that `model` does not take for English."""
    if language == "en":
        return texts
    return [t for t in texts if next(iter(model.scores(t) or {"en": 1})) != "en"]


def snippets(texts, length):
    """Return [(language, text)] of the first `length` characters of each paragraph, 400 at most."""
    return [(language, t[:length]) for language, some in texts.items()
            for t in some[::max(1, len(some) // 400)] if len(t) >= length]


def tune_temperature(model, examples):
    """Set the temperature under which `examples` [(language, text)] are the likeliest."""
    def loss(temperature):
        model.temperature = temperature
        found = ((model.scores(text) or {}).get(language, 1e-9) for language, text in examples)
        return -sum(math.log(max(score, 1e-9)) for score in found)

    model.temperature = min((0.5 + 0.25 * i for i in range(40)), key=loss)


def accuracy(model, examples):
    """Return (share right, mean confidence, Counter of (truth, answer) where wrong)."""
    wrong, confidence = Counter(), 0.0
    for language, text in examples:
        answer, score = next(iter((model.scores(text) or {"?": 0.0}).items()))
        confidence += score / len(examples)
        if answer != language:
            wrong[language, answer] += 1
    return 1 - wrong.total() / len(examples), confidence, wrong


def write(model, counts, path):
    """Write the weights as JSON, a line a language."""
    rows = (json.dumps(language) + ":" + json.dumps(c, ensure_ascii=False, separators=(",", ":"))
            for language, c in sorted(counts.items()))
    text = f'{{"temperature":{model.temperature},"trigrams":{{\n' + ",\n".join(rows) + "\n}}\n"
    path.write_text(text, encoding="utf-8")


def main():
    """Fetch, train, tune, test, write."""
    parser = argparse.ArgumentParser(description="Train the language-id example.")
    parser.add_argument("--debs", type=Path, help="keep the packages here (default: nowhere)")
    parser.add_argument("--out", type=Path, default=HERE.parent / "1" / "weights.json")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        debs = args.debs or Path(scratch)
        fetch(debs)
        corpus = read(debs)
    train, tune, test = (choose(corpus, name) for name in ("train", "tune", "test"))
    counts = fit(train)
    model = LanguageModel(counts, 1.0)
    tune, test = ({language: without_english(model, language, t) for language, t in texts.items()}
                  for texts in (tune, test))
    tune_temperature(model, [e for n in TEST_LENGTHS for e in snippets(tune, n)])
    write(model, counts, args.out)

    letters = {language: sum(map(len, texts)) for language, texts in train.items()}
    print("million characters:", ", ".join(f"{k} {n / 1e6:.2f}" for k, n in letters.items()))
    print(f"temperature {model.temperature}, {args.out.stat().st_size / 1e3:.0f} kB")
    rows = [(f"first {n} characters", snippets(test, n)) for n in TEST_LENGTHS]
    lines = (HERE / "everyday.tsv").read_text(encoding="utf-8").splitlines()
    rows.append(("everyday sentences", [tuple(line.split("\t")) for line in lines]))
    for name, examples in rows:
        right, confidence, wrong = accuracy(model, examples)
        print(f"{name:20} {len(examples):5}  right {right:.1%}  confidence {confidence:.1%}  wrong",
              ", ".join(f"{a}>{b} {n}" for (a, b), n in wrong.most_common(6)))


if __name__ == "__main__":
    main()
