"""The families, each defined in one file. The names are `model_type` in Hugging Face's `config.json`."""

from edgebert.models.bert import BERT
from edgebert.models.convbert import CONVBERT
from edgebert.models.distilbert import DISTILBERT
from edgebert.models.electra import ELECTRA
from edgebert.models.family import Family, Model, outline
from edgebert.models.rembert import REMBERT
from edgebert.models.squeezebert import SQUEEZEBERT

MODELS: dict[str, Family] = {
    "squeezebert": SQUEEZEBERT,
    "convbert": CONVBERT,
    "rembert": REMBERT,
    "bert": BERT,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
}

__all__ = ["MODELS", "Family", "Model", "outline"]
