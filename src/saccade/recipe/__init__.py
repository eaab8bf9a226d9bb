"""The recipe: every choice of a run.

fields      dotted keys, the table of fields, what is said of a bad one
optimizers  which there are, and their learning rates
presets     defaults of backbones and methods, and what "auto" stands for
sections    the fields themselves, a class for each section
recipe      Recipe, all sections together
reading     a recipe from flags and a file
docs        short flags, docs/recipe.md
"""

from saccade.recipe.augmentation import FLIPPED_BY, POLICIES, AugmentConfig, Flip
from saccade.recipe.docs import SHORT_FLAGS, WITHOUT_VALUE, recipe_as_markdown
from saccade.recipe.fields import SYNONYMS, flatten, nest, parse_toml
from saccade.recipe.optimizers import RATES, WITH_MOMENTUM
from saccade.recipe.presets import (
    ALWAYS_FROM_SCRATCH,
    AUTO_BACKBONE,
    BACKBONE_DEFAULTS,
    CLASSIC_FIELDS,
    DEFAULT_BACKBONE,
    DEFAULT_FINETUNE_RATIO,
    HARD_FINETUNE_RATIO,
    METHOD_DEFAULTS,
    TAIL_VIEWS,
    USUAL_GAMMAS,
    WITHOUT_EFFECT,
)
from saccade.recipe.reading import FORMER_DEFAULTS, MEANS, differing_keys, merged_recipe, read_recipe_file
from saccade.recipe.recipe import Recipe, field_table, with_defaults
from saccade.recipe.sections import (
    DataConfig,
    EvaluateConfig,
    ExportConfig,
    ModelConfig,
    SplitConfig,
    TrainConfig,
)

__all__ = [
    "ALWAYS_FROM_SCRATCH",
    "AUTO_BACKBONE",
    "BACKBONE_DEFAULTS",
    "CLASSIC_FIELDS",
    "DEFAULT_BACKBONE",
    "DEFAULT_FINETUNE_RATIO",
    "FLIPPED_BY",
    "FORMER_DEFAULTS",
    "HARD_FINETUNE_RATIO",
    "MEANS",
    "METHOD_DEFAULTS",
    "POLICIES",
    "RATES",
    "SHORT_FLAGS",
    "SYNONYMS",
    "TAIL_VIEWS",
    "USUAL_GAMMAS",
    "WITHOUT_EFFECT",
    "WITHOUT_VALUE",
    "WITH_MOMENTUM",
    "AugmentConfig",
    "DataConfig",
    "EvaluateConfig",
    "ExportConfig",
    "Flip",
    "ModelConfig",
    "Recipe",
    "SplitConfig",
    "TrainConfig",
    "differing_keys",
    "field_table",
    "flatten",
    "merged_recipe",
    "nest",
    "parse_toml",
    "read_recipe_file",
    "recipe_as_markdown",
    "with_defaults",
]
