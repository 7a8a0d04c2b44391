"""Finds the sentences nearest in meaning: a tokenizer and an embedding model.

pip install --no-deps -r examples/python/requirements.txt
python examples/python/real_models.py MODELS
adjoin serve --model-repository MODELS --socket-dir /tmp/adjoin
python examples/python/sentence_embedding.py --socket-dir /tmp/adjoin "Can I get my money back?"
"""

from __future__ import annotations

import argparse

import adjoin
import numpy as np
from real_models import tokenizer

SENTENCES = [
    "How do I reset my password?",
    "The parcel arrived with a broken lid.",
    "Do you ship to Norway?",
    "I would like a refund for my last order.",
    "The app closes as soon as I open it.",
    "Which trains go to the airport on Sundays?",
    "Is the soup free of nuts?",
    "Our cat sleeps on the windowsill all day.",
]
QUERIES = [
    "Can I get my money back?",
    "I forgot the code to log in.",
    "The program crashes at start.",
    "Does this dish contain almonds?",
]


class Embedder:
    def __init__(self, model: adjoin.Model) -> None:
        self.model = model
        self.tokenizer = tokenizer()
        self.tokenizer.enable_padding()
        self.tokenizer.enable_truncation(256)  # tokens: what the model was trained with

    def __call__(self, sentences: list[str]) -> np.ndarray:
        """Unit vectors, (sentence, 384): the nearer in meaning, the larger their product."""
        encoded = self.tokenizer.encode_batch(sentences)
        request = self.model.request(len(encoded), sequence=len(encoded[0]))
        request["input_ids"][:] = [sentence.ids for sentence in encoded]
        request["attention_mask"][:] = [sentence.attention_mask for sentence in encoded]
        request["token_type_ids"][:] = [sentence.type_ids for sentence in encoded]
        with request.infer(timeout=10.0) as result:
            # The mean over a sentence's tokens; padding counts nothing.
            mask = request["attention_mask"][:, :, None]
            sums: np.ndarray = (result["last_hidden_state"] * mask).sum(axis=1)
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("query", nargs="*", default=QUERIES)
    parser.add_argument("--socket-dir", help="default: ADJOIN_SOCKET_DIR, or /run/adjoin")
    parser.add_argument("--nearest", type=int, default=2, help="sentences for each query")
    options = parser.parse_args()

    with adjoin.connect(options.socket_dir) as client:
        embed = Embedder(client.model("sentence_embedding"))
        nearness = embed(options.query) @ embed(SENTENCES).T

    for query, near in zip(options.query, nearness):
        print(query)
        for index in np.argsort(-near)[: options.nearest]:
            print(f"  {near[index]:.2f}  {SENTENCES[index]}")


if __name__ == "__main__":
    main()
