"""The sections of the recipe. Each field's description is its only documentation.

Flags, their help (the first sentence) and `docs/recipe.md` are made from it. "auto" means: worked out later;
`environment.json` holds the value it got, never the recipe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from saccade.recipe.fields import Refusal, Section
from saccade.recipe.optimizers import optimizer_name
from saccade.recipe.presets import ALWAYS_FROM_SCRATCH, AUTO_BACKBONE, DEFAULT_BACKBONE, OWN_PREFIX

PUBLISHED_WEIGHTS = re.compile(r"(timm/\w+)\.(?!safetensors$)\w+")  # timm/NAME.TAG


def _unfreeze_spec(value: Any) -> Any:
    """2 and 0.3 may stand without quotes; what no network could follow is refused before one is built."""
    text = str(value) if type(value) in (int, float) else value
    if isinstance(text, str) and not re.fullmatch(r"all|\d+|\d*\.\d+|layers:-?\d+", text.strip()):
        raise Refusal(
            f"train.unfreeze names no layers: {value!r}",
            hint='give a number of stages ("2"), a share of the layers ("0.3"), "layers:-100" (all but the '
            'first 100) or "all"',
        )
    return text


def own_name(value: str) -> str:
    """`saccade/small_cnn` is small_cnn: everything that asks for a backbone by name sees one spelling."""
    name = value.removeprefix(OWN_PREFIX)
    return name if name in ALWAYS_FROM_SCRATCH else value


def _class_weights(value: Any) -> Any:
    """true and false are auto and none; a weight must be a number above 0."""
    text = str(value).lower() if isinstance(value, bool | str) else value
    known = {"true": "auto", "false": "none", "auto": "auto", "none": "none"}
    if isinstance(text, str) and text not in known:
        raise Refusal(
            f"train.class_weights is neither none nor auto nor weights by name: {value!r}",
            hint="write auto, or names with their weights: rose=3,tulip=1.5",
        )
    if not isinstance(text, Mapping):
        return known.get(text, text)
    bad = [name for name, weight in text.items() if isinstance(weight, bool) or not _is_positive(weight)]
    if bad:
        raise Refusal(
            f"train.class_weights: the weight of {bad[0]} is no number above 0: {text[bad[0]]!r}",
            hint="write names with their weights: rose=3,tulip=1.5",
        )
    return {str(name): float(weight) for name, weight in text.items()}


def _is_positive(value: Any) -> bool:
    try:
        return 0 < float(value) < math.inf
    except (TypeError, ValueError):
        return False


def channel_count(channels: str) -> int:
    """How many values a pixel has: 3 for rgb, 1 for gray, else the number."""
    return {"rgb": 3, "gray": 1}.get(channels) or int(channels)


def _channels(value: Any) -> Any:
    """rgb, gray or a number, which may stand without quotes; 1 is gray, which is also written grey."""
    text = str(value).strip().lower() if type(value) in (int, str) else value
    text = {"1": "gray", "grey": "gray", "grayscale": "gray"}.get(text, text)
    if text in ("rgb", "gray") or (isinstance(text, str) and re.fullmatch(r"[2-9]|[1-5]\d|6[0-4]", text)):
        return text
    raise Refusal(
        f"data.channels is no kind of pixel: {value!r}", hint="give rgb, gray, or a number from 2 to 64"
    )


_SECONDS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def _seconds(value: Any) -> Any:
    """60s, 5m and 1h are seconds, as a number is."""
    if type(value) in (int, float):
        return value
    text = value.strip().lower() if isinstance(value, str) else ""
    if text == "auto":
        return text
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?(ms|s|m|min|h)?", text)
    if not found:
        raise Refusal(
            f"train.checkpoint_every is no time: {value!r}",
            hint="write a number of seconds, or 60s, 5m, 1h; 0 is only at the ends of epochs",
        )
    return float(found[1]) * _SECONDS[found[2] or ""]


def _whole(value: Any) -> Any:
    """A number that stands in a flag is text."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _one_mark(value: str) -> str:
    """What parts the labels of a cell is one mark, no letter and no digit."""
    if len(value) > 1 or value.isalnum() or value in ('"', "\n", "\r"):
        raise Refusal(
            f"data.label_delimiter is not one mark: {value!r}", hint='give one, such as ",", ";" or "|"'
        )
    return value


Auto = Literal["auto"]
Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Deviation = Annotated[float, Field(ge=1e-3)]  # pixels are 0 to 1; less makes inputs that end in infinities
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
ClassWeights = Annotated[Literal["none", "auto"] | dict[str, float], BeforeValidator(_class_weights)]
Unfreeze = Annotated[str, BeforeValidator(_unfreeze_spec)]
Backbone = Annotated[str, AfterValidator(own_name)]
Optimizer = Annotated[str, AfterValidator(optimizer_name)]
Channels = Annotated[str, BeforeValidator(_channels)]
Monitor = Literal[
    "loss", "calibrated_loss", "accuracy", "balanced_accuracy", "macro_f1", "top5", "mean_average_precision"
]
Delimiter = Annotated[str, AfterValidator(_one_mark)]
Interval = Annotated[NotNegative | Auto, BeforeValidator(_seconds)]


class DataConfig(Section):
    """Which images, and how they become the network's input.

    >>> DataConfig(image_size=160).resize
    'auto'
    """

    image_size: AtLeastOne | Auto = "auto"
    """Side of the network's square input in pixels. auto: the backbone's own; small_cnn takes 32 to 224 and
    fast_cnn 28 to 64, depending on the images.
    """
    resize: Literal["crop", "pad", "squash"] | Auto = "auto"
    """How an image becomes square. crop: resize the short side, cut out the centre. pad: keep the whole
    image, with bars. squash: ignore the aspect ratio. auto: as the weights need it; squash for small_cnn and
    fast_cnn.
    """
    interpolation: Literal["bilinear", "bicubic"] | Auto = "auto"
    """Resampling filter, antialiased. auto: as the weights need it."""
    crop_fraction: Annotated[float, Field(ge=0.1, le=1)] | Auto = "auto"
    """Share of the resized short side that the centre crop keeps. auto: as the weights need it."""
    channels: Channels = "rgb"
    """What a pixel holds: rgb, gray, or a number of channels. gray keeps one channel; colours are turned into
    it. A number (2 to 64) keeps as many as they are, of TIFF, .npy or any file with so many.
    """
    bits: Annotated[Literal[8, 16], BeforeValidator(_whole)] | Auto = "auto"
    """Bits of a channel, where channels is not rgb. auto: 16 where an image has them, else 8. 16-bit colour
    photos of rgb are read with 8.
    """
    mean: tuple[float, ...] | Auto = "auto"
    """Channel means (0 to 1), one for each channel. auto: those of the weights, for gray the mean of theirs;
    from scratch, and for a number of channels, those of the training images.
    """
    std: tuple[Deviation, ...] | Auto = "auto"
    """Channel standard deviations (0 to 1), one for each channel. auto: as for mean."""
    path_column: str = ""
    """Column of the list that names the image files. Empty: path."""
    label_column: str = ""
    """Column of the list that names the classes. Empty: label."""
    multi_label: bool = False
    """An image may have several labels, or none. Rows of the list that repeat a path are labels of one image,
    and an empty label is none. label_delimiter and label_columns say so by themselves.
    """
    label_delimiter: Delimiter = ""
    """Mark between labels in one cell, such as "," or ";". Empty: a cell of the list is one label."""
    label_columns: str = ""
    """Columns of 0 and 1, one for each label. 1 is where an image has it (one-hot). They are names of columns
    of the list, or patterns, with commas between, such as cat,dog or is_*.
    """
    root: str = ""
    """Folder that the paths of the list are relative to. Empty: the folder of the list."""
    drop_empty: bool = False
    """Skip class folders without images instead of stopping."""
    max_pixels: AtLeastOne = 50_000_000
    """An image with more pixels is set aside before it is decoded."""
    background: tuple[Count, Count, Count] = (255, 255, 255)
    """Colour (RGB, 0 to 255) behind transparent pixels."""
    gray_maximum: Annotated[int, Field(ge=0, le=65535)] = 0
    """Value that means white in 16-bit grey images, such as 4095 for 12 bits. 0: as the file says (65535). It
    is stored with the model. Where channels is a number, it counts for all of them.
    """
    decisions: str = ""
    """A CSV with your decisions about findings and labels. Its columns are path, decision and, where needed,
    other and new_label (docs/audit.md). It wins over audit-decisions.csv beside the data, which is read, too.
    """
    cache_gb: NotNegative = 8.0
    """Disk space in gigabytes for decoded training images, kept in your cache folder for later runs. The
    least recently used images are removed first. 0 is off.
    """

    @model_validator(mode="after")
    def _fit_the_channels(self) -> DataConfig:
        count = channel_count(self.channels)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values != "auto" and len(values) != count:
                raise Refusal(
                    f"data.{name} has {len(values)} values for {count} channels (data.channels = "
                    f"{self.channels})",
                    hint="give one for each channel, or leave it out",
                )
        if self.channels == "rgb" and self.bits == 16:
            raise Refusal(
                "data.bits = 16 with data.channels = rgb: RGB images are read with 8 bits",
                hint="declare --channels 3, which keeps 16-bit TIFF and .npy as they are, or --channels gray",
            )
        return self


class SplitConfig(Section):
    """How the images are divided into train, validation and test.

    >>> SplitConfig(validation=0.2, test=0.2).group
    ''
    """

    validation: Share = 0.15
    """Share of the images for validation. Used for unsplit data, and for training images where no validation
    part is given.
    """
    test: Share = 0.15
    """Share of the images for the test. Used for unsplit data only."""
    group: str = ""
    """Column of what must stay together, such as patient. Other examples are the video or the site."""
    group_pattern: str = ""
    """The same by a regular expression on the path. Its first group, or the whole match, names what must stay
    together.
    """
    folds: Count = 0
    """Cross-validation in so many folds: a run for each, and one model made of all. Each image outside of
    the test part is held out once. What belongs together is in one fold. 0 is off.
    """
    near_duplicates: bool = True
    """Search for near-duplicates and keep them in one part."""
    repair: bool = False
    """Move images of a given split so that nothing leaks. No group and no near-duplicates cross parts."""
    allow_leaks: bool = False
    """Train on a given split although groups cross its parts. The report then shows promise 1 as broken."""

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> SplitConfig:
        if self.folds == 1:
            raise Refusal(
                "split.folds = 1: cross-validation needs 2 folds or more",
                hint="give --folds 5, or leave it out for a single run",
            )
        if self.validation + self.test >= 1:
            raise Refusal(
                f"split.validation + split.test leave nothing to train on: {self.validation} + {self.test}",
                hint="their sum must be below 1; the rest of the images go to training",
            )
        return self


class ModelConfig(Section):
    """The network: which backbone, which weights, which head.

    >>> ModelConfig(backbone="saccade/small_cnn").backbone
    'small_cnn'
    """

    backbone: Backbone = DEFAULT_BACKBONE
    """`saccade backbones` lists them. timm/NAME and torchvision/NAME choose the library. The default's
    weights come with saccade[train], so that no hub is needed. auto compares the backbones whose weights are
    on this machine (a folder given as weights, else installed packages and the hub's local cache) by
    cross-validation on training images, and by latency.
    """
    max_latency_ms: NotNegative = 0.0
    """Latency limit for backbone auto and evaluate.size, in milliseconds for one photo on one core of this
    machine. Preprocessing counts, and the exported file is measured. 0 is no limit.
    """
    pretrained: bool = True
    """Start from ImageNet weights. small_cnn and fast_cnn have none and always start from scratch."""
    weights: str = ""
    """Other weights than the published ones. They are a safetensors file, a folder with config.json and
    model.safetensors (as timm writes it), or timm/NAME.TAG. With backbone auto: a folder of such files.
    """
    accept_licence: str = ""
    """Licence of the weights that you accept by its name, where it is not Apache, MIT or BSD."""
    head: Literal["linear", "mlp"] = "linear"
    """Layers on top of the pooled features. linear: one dense layer. mlp: Dense 256, ReLU, Dropout 0.5,
    Dense.
    """
    dropout: Share | Auto = "auto"
    """Dropout before the linear head. auto: the usual 0.2 for pretrained backbones. small_cnn has its own,
    fast_cnn none.
    """
    drop_path: Share = 0.0
    """Probability with which training skips a whole block (stochastic depth). It rises from 0 at the first
    block to this at the last.
    """
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Build options for the backbone, such as pad_type = "same" or, for fast_cnn, width = 32. They win over
    the weights file's header.
    """

    @model_validator(mode="before")
    @classmethod
    def _follow_named_weights(cls, values: Any) -> Any:
        """Weights that are named as timm/NAME.TAG say which backbone they belong to."""
        weights = values.get("weights") if isinstance(values, Mapping) else None
        named = PUBLISHED_WEIGHTS.fullmatch(weights) if isinstance(weights, str) else None
        return {"backbone": named[1], **values} if named else values

    @model_validator(mode="after")
    def _choose_only_where_there_is_a_choice(self) -> ModelConfig:
        if self.backbone == AUTO_BACKBONE and not self.pretrained:
            raise Refusal(
                "backbone = 'auto' compares pretrained weights, but model.pretrained is false",
                hint="name a backbone, or leave --no-pretrained out",
            )
        if self.backbone == AUTO_BACKBONE and PUBLISHED_WEIGHTS.fullmatch(self.weights):
            raise Refusal(
                f"backbone = 'auto' compares files, but weights names one network: {self.weights}",
                hint="leave --backbone out, or give a folder as --weights",
            )
        if self.backbone == AUTO_BACKBONE and self.options:
            raise Refusal(
                f"model.options belong to one backbone, but backbone is 'auto': {', '.join(self.options)}",
                hint="name the backbone, or leave the options out",
            )
        return self


class TrainConfig(Section):
    """How the network is trained.

    >>> TrainConfig(epochs=5).optimizer
    'adamw'
    """

    method: Literal["auto", "head", "tail", "full", "finetune"] = "auto"
    """What to train; head is fastest. auto decides, full adapts all layers of pretrained weights. head: a
    linear probe, fitted in seconds on frozen features. tail: the same head, then fine-tuning of the last
    layers (unfreeze, there 0.42) on cached activations of the frozen ones. full: the same head, then
    fine-tuning of all layers. auto: the head, then full if a trial on training images shows a gain, or tail
    where time_limit is too short for full; without epochs and time_limit it spends 10 minutes on each point
    of accuracy that the trial gained (10 minutes to 2 hours). finetune: two phases, head_epochs of training
    the head, then fine-tuning of what unfreeze names. Setting epochs, head_epochs, lr, finetune_lr or
    unfreeze without a method selects finetune. With a method on which one of them has no effect it is
    refused. Ignored when training from scratch, except that head and tail are refused there.
    """
    epochs: AtLeastOne | Auto = "auto"
    """Epochs of fine-tuning, or from scratch. auto: 20; after a fitted head 10 (methods auto and
    full) or 6 (tail).
    """
    head_epochs: Count = 5
    """Epochs of the first phase of method finetune, which trains only the new head on a frozen base."""
    batch_size: AtLeastOne | Auto = 32
    """Images in one step. auto: 32; for fast_cnn 16 to 500, the largest that leaves ten steps in an epoch."""
    lr: Positive | Auto = "auto"
    """Learning rate. It is that of the head (method finetune) or of training from scratch. auto: for Adam and
    AdamW 3e-3 on a frozen base and 1e-3 from scratch, for SGD 0.05 (small_cnn: 0.005), for Muon 0.24; the
    table for others is in docs/optimisation.md.
    """
    finetune_lr: Positive | Auto = "auto"
    """Learning rate of fine-tuning. auto: a hundredth of lr; after a fitted head (methods auto, tail and
    full) a tenth. More than a tenth is refused.
    """
    allow_large_finetune_lr: bool = False
    """Allow a fine-tuning learning rate above a tenth of lr."""
    unfreeze: Unfreeze = "2"
    """Layers that methods finetune and tail fine-tune: "2" stages from the end, a share "0.3", or "all". A
    fourth form is "layers:-100": all but the first 100.
    """
    kept_views: Count | Auto = "auto"
    """Augmented views of each training image whose activations are computed once and cached (methods tail and
    finetune). They are those at the end of the frozen stages, in at most a quarter of the memory, and epochs
    go through the views in turn. 0: none; every epoch runs the whole network. auto: 4 for tail, else 0.
    """
    optimizer: Optimizer = "adamw"
    """Optimizer: adamw, adam, sgd (with Nesterov momentum), rmsprop, muon, or any of timm.optim by its name,
    such as lamb, lion, nadamw or timm/muon. Muon orthogonalises the steps of convolution filters and trains
    the rest by SGD. It is for training from scratch where norms follow the convolutions.
    """
    momentum: Share = 0.9
    """Momentum of SGD, RMSprop and those of timm.optim that have one, and of what Muon trains by SGD."""
    weight_decay: NotNegative = 0.01
    """Weight decay; never applied to norms and biases."""
    schedule: Literal[
        "constant",
        "cosine",
        "cosine_restarts",
        "linear",
        "polynomial",
        "exponential",
        "one_cycle",
        "step",
        "multi_step",
        "plateau",
    ] = "cosine"
    """How the learning rate changes in each phase. linear: a straight line to 0. polynomial: a power of that.
    exponential: by a factor each epoch. cosine_restarts: cosine again and again (SGDR). one_cycle: up over
    30 % of the phase, then down to nearly 0. step and multi_step: drops after some epochs. plateau:
    ReduceLROnPlateau on what train.monitor names; no other schedule depends on it. Under a time limit cosine,
    linear, polynomial and one_cycle complete within the epochs that fit.
    """
    warmup_epochs: NotNegative = 1.0
    """Epochs, or a part of one, over which the learning rate rises. one_cycle has its own warm-up."""
    step_epochs: AtLeastOne = 10
    """Epochs between two drops of the step schedule."""
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor of each drop of the schedules step and multi_step."""
    milestones: tuple[AtLeastOne, ...] = ()
    """Epochs of a phase after which multi_step drops the learning rate. Empty: half and three quarters of
    the phase.
    """
    decay_factor: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Factor of the exponential schedule for each epoch. It falls a little in each step."""
    decay_power: Positive = 2.0
    """Power of the polynomial schedule. 1 is linear."""
    restart_epochs: AtLeastOne = 5
    """Epochs of the first cosine of cosine_restarts."""
    restart_growth: AtLeastOne = 1
    """How many times longer each following cosine is than the one before."""
    monitor: Monitor = "calibrated_loss"
    """Figure of the validation part that decides which epoch is the best, when early stopping ends a phase
    and when the plateau schedule drops the learning rate. A lower loss is better, and a higher figure of
    each other kind. calibrated_loss is the loss with a temperature fitted to that part: a network that is too
    sure of itself is not given up for that. history.jsonl has the figure as monitored.
    mean_average_precision is for images that may have several labels, balanced_accuracy and top5 for those
    with one.
    """
    plateau_patience: Count = 3
    """Epochs without a better validation before the plateau schedule drops the learning rate."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Factor of each drop of the plateau schedule."""
    plateau_min_lr: NotNegative = 0.0
    """Learning rate below which the plateau schedule does not drop."""
    early_stopping: Count = 8
    """Epochs without a better validation (train.monitor) after which a phase stops. The best checkpoint is
    restored. 0 is off.
    """
    min_delta: NotNegative = 0.0
    """Least improvement that early stopping counts as one, in units of train.monitor. The best checkpoint is
    the best all the same.
    """
    progressive_size: Share = 0.0
    """Share of the input's side at which training of a whole network starts; 0.57 is usual. It grows to the
    full side in steps of 32 pixels, over the first three quarters of the epochs. Validation is always at full
    size. 0 is off.
    """
    loss: Literal["cross_entropy", "bce", "focal", "asymmetric"] = "cross_entropy"
    """What training minimises. All but cross_entropy ask each class by itself, by a sigmoid. bce: binary
    cross-entropy. focal: bce with less weight on what is right already. asymmetric: less weight only on
    classes that an image does not show. A head that is fitted minimises it, too. Where each image has one
    class, the model answers with a softmax all the same.
    """
    loss_gamma: NotNegative | Auto = "auto"
    """Focusing power of losses focal and asymmetric. 0 is bce. auto: 2 for focal, 4 for asymmetric."""
    label_smoothing: Share = 0.0
    """Share of the target spread over all classes."""
    class_weights: ClassWeights = "none"
    """Weight of each class in the loss. auto: by the inverse frequency among the training images, 1 on
    average over the images. Or by class name: rose=3,tulip=1.5; a class that is not named has 1.
    """
    sampling: Literal["natural", "square_root", "balanced"] = "natural"
    """How often an epoch visits the images of a class. natural: each once. balanced: as many visits to each
    class. square_root: visits by the square root of its images. An epoch has as many visits in all cases. A
    head that is fitted weighs the classes in place of it.
    """
    logit_adjustment: NotNegative = 0.0
    """Share of the logarithms of the class shares that is added to the logits in the loss (Menon et al.
    2021). 1 makes the model one for classes that are equally common. 0 is off. evaluate.logit_adjustment does
    it after training.
    """
    ema_decay: Share | Auto = "auto"
    """Decay of an exponential moving average (EMA) of the weights, updated at each step. The average is what
    is validated, kept and exported; training goes on with the weights themselves. 0 is off. auto: 0.98 where
    a fitted head is fine-tuned (methods auto, tail and full), else 0. From scratch and with method finetune
    it warms up: at step t it is the smaller of this and (1 + t) / (10 + t).
    """
    swa_epochs: Count = 0
    """Last epochs of a phase whose weights are averaged equally (SWA), in place of ema_decay. The average is
    what is validated, kept and exported from the second of them on. 0 is off. It wants a learning rate that
    stays up: schedule constant, or cosine_restarts.
    """
    average_with_pretrained: Probability | Auto = 0.0
    """Share of the pretrained weights, with a head fitted on them, in an average with the fine-tuned ones
    (WiSE-FT). auto tries several shares on validation, and keeps the best where its log loss is lower. 0 is
    off.
    """
    gradient_clip: NotNegative = 0.0
    """Limit of the gradient, as gradient_clip_by has it. 0 is off."""
    gradient_clip_by: Literal["norm", "value", "agc"] = "norm"
    """What gradient_clip limits. norm: the length of the whole gradient. value: each number in it. agc: the
    gradient of each filter, as a share of the filter's length; 0.01 is usual.
    """
    accumulate: AtLeastOne = 1
    """Batches whose gradients are summed before each step. It makes a step of a larger batch than fits into
    memory; only BatchNorm and mixing see the smaller ones.
    """
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each stage to the one before it. The head has the full rate, so that
    early stages move less. 1: all have the same; 0.75 is usual for transformers.
    """
    workers: Count | Auto = "auto"
    """Processes that decode images. auto: none on 4 cores or fewer."""
    cache_images: bool = True
    """Decode each training image once. It is kept on disk (data.cache_gb), or else in up to a quarter of the
    memory.
    """
    time_limit: NotNegative = 0.0
    """Seconds for the whole command. Export and report count. Training stops early enough. 0 is no limit.
    """
    checkpoint_every: Interval = "auto"
    """Time between two checkpoints inside an epoch, such as 60s or 5m; 0: only at its end. A killed run
    loses no more than that; a stopped one writes one more and loses nothing. auto: 60s, or longer where
    writing them would take more than 2 % of the time. It changes no result.
    """

    @model_validator(mode="after")
    def _adjust_only_a_softmax(self) -> TrainConfig:
        if self.logit_adjustment and self.loss != "cross_entropy":
            raise Refusal(
                f"train.logit_adjustment is for loss cross_entropy, but loss is {self.loss}",
                hint="leave one of them out, or adjust after training: --evaluate.logit_adjustment auto",
            )
        return self


class EvaluateConfig(Section):
    """How the model is evaluated.

    >>> EvaluateConfig().top_k
    (1, 5)
    """

    top_k: tuple[AtLeastOne, ...] = (1, 5)
    """Values of k for top-k accuracy. Those above the number of classes are left out."""
    calibrate: bool = True
    """Temperature scaling: fit one temperature on the validation part, so that confidences match accuracy."""
    size: Literal["same", "auto"] | AtLeastOne = "same"
    """Side in pixels at which the trained network is evaluated and exported. same: as it was trained. auto:
    about 1.15 and 1.3 times that are tried on validation, and kept where the log loss falls by more than
    chance, within max_latency_ms (FixRes). A number is taken as it is.
    """
    logit_adjustment: NotNegative | Auto = 0.0
    """Strength of a logit adjustment after training, which names rare classes more readily (Menon et al.
    2021). 1 is for classes that are equally common, 0 is off. auto: chosen by balanced accuracy on the
    validation part, and left out where that gains nothing certain. `--priors training` undoes it.
    """
    precision: Share = 0.0
    """Precision that each label must have on the validation part, where an image may have several. Its
    threshold is then the lowest that reaches it. 0: the threshold with the best F1.
    """
    target_precision: Share = 0.95
    """Share of its answers that must be right, where the model may leave images to a person. The lowest
    confidence that surely reaches it on validation images (lower end of the 95 % interval) is recommended,
    or where there is none the lowest that reaches it, and judged on the test part. 0: none is.
    """
    coverage: Share = 0.95
    """How often a set of labels must hold the true one (conformal prediction). The probability that a class
    needs to be in the set is chosen on validation images, and judged on the test part. 0: none is.
    """
    flip: bool = False
    """Test-time augmentation: average the logits of the image and its mirror image, in the exported file too.
    It doubles the cost of each prediction. The training history is measured without it.
    """


class ExportConfig(Section):
    """What is exported, and how far it may differ.

    >>> ExportConfig().tolerance
    0.001
    """

    onnx: bool = True
    """Write and certify export/model.onnx at the end of training."""
    tolerance: Positive = 1e-3
    """Largest difference of a probability between the exported file and the trained model."""
    max_drop: NotNegative = 0.01
    """Largest drop in validation accuracy of a reduced (int8) model. Its 95 % bound may be 0.04 larger."""
    certify_images: AtLeastOne = 1000
    """Most validation and test images used for the certificate."""
    calibration_images: AtLeastOne = 200
    """Most training images used to calibrate an int8 model."""
