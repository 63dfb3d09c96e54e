"""The families, each defined in one file, and by which `model_type` Hugging Face's `config.json` asks for one."""

from edgebert.models.albert import ALBERT
from edgebert.models.bert import BERT
from edgebert.models.convbert import CONVBERT
from edgebert.models.deberta_v2 import DEBERTA_V2
from edgebert.models.distilbert import DISTILBERT
from edgebert.models.electra import ELECTRA
from edgebert.models.family import Family, Model, outline
from edgebert.models.mobilebert import MOBILEBERT
from edgebert.models.modernbert import MODERNBERT
from edgebert.models.mpnet import MPNET
from edgebert.models.nomic_bert import NOMIC_BERT
from edgebert.models.rembert import REMBERT
from edgebert.models.roberta import ROBERTA
from edgebert.models.squeezebert import SQUEEZEBERT

MODELS: dict[str, Family] = {
    "squeezebert": SQUEEZEBERT,
    "convbert": CONVBERT,
    "rembert": REMBERT,
    "bert": BERT,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "roberta": ROBERTA,
    "mpnet": MPNET,
    "albert": ALBERT,
    "mobilebert": MOBILEBERT,
    "deberta-v2": DEBERTA_V2,
    "modernbert": MODERNBERT,
    "nomic_bert": NOMIC_BERT,
}
MODEL_TYPES = {kind: family for name, family in MODELS.items() for kind in family.model_types or (name,)}

__all__ = ["MODELS", "MODEL_TYPES", "Family", "Model", "outline"]
