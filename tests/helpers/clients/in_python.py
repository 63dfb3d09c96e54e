"""A bundle in a client for Python: `python in_python.py CLIENT TASK BUNDLE < asked.json` prints what it answers.

It runs in an environment of its own, see ../clients.py, and needs nothing of edgebert.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def optimum(task: str, bundle: Path, file: str, asked: list[Any]) -> Any:
    """transformers' pipelines over optimum's models; where there is none, the model's own outputs."""
    import optimum.onnxruntime as ort
    from transformers import AutoTokenizer, pipeline

    kinds = {
        "text-classification": ("ORTModelForSequenceClassification", {"top_k": None}),
        "token-classification": ("ORTModelForTokenClassification", {}),
        "question-answering": ("ORTModelForQuestionAnswering", {}),
        "fill-mask": ("ORTModelForMaskedLM", {}),
        "feature-extraction": ("ORTModelForFeatureExtraction", None),
        "multiple-choice": ("ORTModelForMultipleChoice", None),
    }
    kind, how = kinds[task]
    words = AutoTokenizer.from_pretrained(bundle)
    model = getattr(ort, kind).from_pretrained(bundle, subfolder="onnx", file_name=file, local_files_only=True)
    if task == "multiple-choice":
        scored = []
        for text, choices in asked:
            rows = words([text] * len(choices), choices, return_tensors="pt", padding=True)
            scored.append(model(**{name: row[None] for name, row in rows.items()}).logits[0].tolist())
        return scored
    if how is None:
        given = [
            words([one] if isinstance(one, str) else [list(pair) for pair in one], return_tensors="pt", padding=True)
            for one in asked
        ]
        return [next(iter(model(**one).values())).tolist() for one in given]
    ask = pipeline(task, model=model, tokenizer=words)
    if task == "question-answering":
        return [ask(question=question, context=context) for question, context in asked]
    return [ask(one, **how) for one in asked]


def sentence_transformers(task: str, bundle: Path, file: str, asked: list[Any]) -> Any:
    """Vectors; also of a pair of texts its score."""
    import sentence_transformers as st

    how = {"backend": "onnx", "model_kwargs": {"file_name": f"onnx/{file}"}, "local_files_only": True, "device": "cpu"}
    if task == "text-classification":
        return st.CrossEncoder(str(bundle), **how).predict([tuple(pair) for pair in asked]).tolist()
    return st.SentenceTransformer(str(bundle), **how).encode(asked).tolist()


def fastembed(task: str, bundle: Path, file: str, asked: list[Any]) -> Any:
    """Vectors, pooled by fastembed."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    pooling = json.loads((bundle / "1_Pooling" / "config.json").read_bytes())
    modules = [each["type"].rpartition(".")[2] for each in json.loads((bundle / "modules.json").read_bytes())]
    TextEmbedding.add_custom_model(
        model=bundle.name,
        pooling=PoolingType.MEAN if pooling["pooling_mode_mean_tokens"] else PoolingType.CLS,
        normalization="Normalize" in modules,
        sources=ModelSource(hf=bundle.name),
        dim=pooling["word_embedding_dimension"],
        model_file=f"onnx/{file}",
    )
    model = TextEmbedding(bundle.name, specific_model_path=str(bundle), threads=1)
    return [vector.tolist() for vector in model.embed(asked)]


def mediapipe(task: str, bundle: Path, file: str, asked: list[Any]) -> Any:
    """MediaPipe's tasks: scores by label, or vectors."""
    from mediapipe.tasks.python import text

    if task == "text-classification":
        with text.TextClassifier.create_from_model_path(str(bundle / file)) as model:
            heads = [model.classify(one).classifications for one in asked]
        return [{each.category_name: each.score for each in head.categories} for (head,) in heads]
    with text.TextEmbedder.create_from_model_path(str(bundle / file)) as model:
        return [model.embed(one).embeddings[0].embedding.tolist() for one in asked]


CLIENTS: dict[str, Callable[[str, Path, str, list[Any]], Any]] = {
    "optimum": optimum,
    "sentence-transformers": sentence_transformers,
    "fastembed": fastembed,
    "mediapipe": mediapipe,
}

if __name__ == "__main__":
    client, task, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    (file,) = (path.name for path in [*folder.glob("onnx/*.onnx"), *folder.glob("*.tflite")])
    answers = CLIENTS[client](task, folder, file, json.load(sys.stdin))
    print(json.dumps(answers, default=float))
