"""Tell the language of a text by its letter trigrams.

Input {"text": "..."}; output {"language": "de", "confidence": 0.98, "scores": {"de": 0.98, ...}}
with the scores of all languages, best first, adding up to 1.
"""

import json
import math
from collections import Counter
from pathlib import Path

TEXT_MAX = 20_000  # characters that are looked at: more adds time and no certainty


def words(text):
    """Return the words of `text`: runs of letters, lower case."""
    return "".join(c if c.isalpha() else " " for c in text.lower()).split()


def trigrams(word):
    """Return the trigrams of a word with a space before and after: "le" -> [" le", "le "]."""
    padded = f" {word} "
    return [padded[i:i + 3] for i in range(len(padded) - 2)]


class LanguageModel:
    """Naive Bayes over trigrams, with a temperature because neighbouring trigrams overlap."""

    def __init__(self, counts, temperature):
        """`counts`: language -> trigram -> occurrences in a million (those left out: very few)."""
        self.languages = sorted(counts)
        self.temperature = temperature
        self.unseen = math.log(1e-6)
        self.logs = {}  # trigram -> [log probability in each language]
        for place, language in enumerate(self.languages):
            for trigram, count in counts[language].items():
                row = self.logs.setdefault(trigram, [self.unseen] * len(self.languages))
                row[place] = math.log((count + 1) * 1e-6)

    @classmethod
    def load(cls, path):
        """Read the JSON file that train.py writes."""
        weights = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(weights["trigrams"], weights["temperature"])

    def evidence(self, text):
        """Return the log probability of the text's trigrams in each of `self.languages`.

        Trigrams known to no language are left out; None when nothing is left.
        """
        found = Counter(t for word in words(text[:TEXT_MAX]) for t in trigrams(word))
        rows = [(self.logs[t], n) for t, n in found.items() if t in self.logs]
        if not rows:
            return None
        return [sum(row[i] * n for row, n in rows) for i in range(len(self.languages))]

    def scores(self, text):
        """Return {language: probability}, best first; None for a text without a known trigram."""
        evidence = self.evidence(text)
        if evidence is None:
            return None
        best = max(evidence)
        powers = [math.exp((e - best) / self.temperature) for e in evidence]
        total = sum(powers)
        shares = {name: p / total for name, p in zip(self.languages, powers)}
        return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


def main():
    """Serve the model in this folder."""
    from headrace_exec import TaskError, serve

    model = LanguageModel.load(Path(__file__).with_name("weights.json"))

    def run(input, task):
        text = input.get("text") if isinstance(input, dict) else None
        if not isinstance(text, str):
            raise TaskError("bad_input", 'expected {"text": "..."}')
        scores = model.scores(text)
        if scores is None:
            raise TaskError("bad_input", "the text has no words in a known alphabet")
        language, confidence = next(iter(scores.items()))
        rounded = {name: round(score, 4) for name, score in scores.items()}
        return {"language": language, "confidence": round(confidence, 4), "scores": rounded}

    serve(run)


if __name__ == "__main__":
    main()
