"""The four families, each defined in one file. The names are `model_type` in Hugging Face's `config.json`."""

from edgebert.models.bert import BERT
from edgebert.models.convbert import CONVBERT
from edgebert.models.family import Family, Model
from edgebert.models.rembert import REMBERT
from edgebert.models.squeezebert import SQUEEZEBERT

MODELS: dict[str, Family] = {
    "squeezebert": SQUEEZEBERT,
    "convbert": CONVBERT,
    "rembert": REMBERT,
    "bert": BERT,
}

__all__ = ["MODELS", "Family", "Model"]
