"""Fix the classifier of a Hugging Face text model and train it.

The text is on every machine that has Python: docstrings of four packages of the standard library; the
model says which package a docstring is from. By default a small BERT starts from nothing; --model
NAME_OR_PATH takes a pretrained one with its tokenizer.

    python examples/finetune_text.py
    python examples/finetune_text.py --model distilbert-base-uncased
"""

import argparse
import ast
import re
import sysconfig
from collections import Counter
from pathlib import Path

import torch

from neuralcollapse import fix_classifier, measure
from neuralcollapse.extras import missing

try:
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        BertConfig,
        BertForSequenceClassification,
    )
except ImportError:
    raise SystemExit(str(missing("text models", "hf"))) from None

PACKAGES = ("asyncio", "email", "importlib", "unittest")
LENGTH = 32


def main() -> None:
    """Convert, train, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a pretrained model of the Hub, or a folder")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(0)
    texts, labels = docstrings()
    if options.model:
        try:
            tokenizer = AutoTokenizer.from_pretrained(options.model)
            model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=len(PACKAGES))
        except OSError:
            raise SystemExit(
                f"--model {options.model} is no folder with a model, and could not be downloaded. A model of the Hub "
                "needs a network once. Without --model, a small BERT is trained that needs none"
            ) from None
        encoded = tokenizer(texts, truncation=True, padding="max_length", max_length=LENGTH, return_tensors="pt")
        inputs, mask = encoded["input_ids"], encoded["attention_mask"]
    else:
        inputs, mask = frequent_words(texts, 2000)
        config = BertConfig(
            vocab_size=2000, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
            max_position_embeddings=LENGTH, num_labels=len(PACKAGES), hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        model = BertForSequenceClassification(config)
    # Longer rows make the logits of a fixed head reach zero loss with shorter features.
    model = fix_classifier(model, scale=5.0)

    order = torch.randperm(len(labels))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]

    def batches(rows: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        return [
            {"input_ids": inputs[part], "attention_mask": mask[part], "labels": labels[part]} for part in rows.split(32)
        ]

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5 if options.model else 1e-3)
    for epoch in range(options.epochs):
        model.train()
        for batch in batches(train[torch.randperm(len(train))]):
            loss = model(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: last loss {loss.item():.4f}")
    print(measure(model, batches(train)))
    model.eval()
    with torch.no_grad():
        right = sum(int((model(**batch).logits.argmax(1) == batch["labels"]).sum()) for batch in batches(test))
    print(f"test accuracy {right / len(test):.2%} of {len(test)} docstrings")


def docstrings() -> tuple[list[str], torch.Tensor]:
    """Docstrings of the packages, and the index of their package."""
    texts, labels = [], []
    for label, package in enumerate(PACKAGES):
        for file in sorted(Path(sysconfig.get_paths()["stdlib"], package).glob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                documented = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                if documented and (text := ast.get_docstring(node)):
                    texts.append(text)
                    labels.append(label)
    return texts, torch.tensor(labels)


def frequent_words(texts: list[str], vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the most frequent words and a mask; 0 pads, 1 is any other word."""
    split = [re.findall(r"[a-z]+", text.lower())[:LENGTH] for text in texts]
    counted = Counter(word for words in split for word in words)
    index = {word: number for number, (word, _) in enumerate(counted.most_common(vocabulary - 2), start=2)}
    rows = torch.zeros(len(texts), LENGTH, dtype=torch.long)
    for row, words in zip(rows, split, strict=True):
        numbers = [index.get(word, 1) for word in words] or [1]
        row[: len(numbers)] = torch.tensor(numbers)
    return rows, (rows > 0).long()


if __name__ == "__main__":
    main()
