"""A method before its training: new, or one that takes over what an earlier model has learned."""

from __future__ import annotations

from dataclasses import replace

import torch

from hsiclust.errors import UsageError
from hsiclust.modelfile import FittedModel
from hsiclust.models.base import Method
from hsiclust.models.contrastdm import ContrastDm
from hsiclust.models.encoder import DenseEncoder
from hsiclust.models.forest import Forest
from hsiclust.models.kmeans import KMeans
from hsiclust.models.sscc import Sscc
from hsiclust.models.svm import Svm
from hsiclust.palette import Classes
from hsiclust.trainoptions import CLUSTERING, TrainOptions


def new_method(components: int, classes: int, options: TrainOptions) -> Method:
    """An unfitted method; its weights are drawn from the seed."""
    chosen = options.chosen_method
    if chosen == "kmeans":
        smoothing = {} if options.smoothing is None else {"smoothing": options.smoothing}
        return KMeans(components, classes, **smoothing)
    if chosen == "svm":
        return Svm(components, classes)
    if chosen == "forest":
        return Forest(components, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        if chosen == "contrastdm":
            return ContrastDm(components, classes, options.contrastdm_settings)
        return Sscc(components, classes, options.settings)


def succeeded(model: FittedModel, classes: Classes, options: TrainOptions) -> FittedModel:
    """The model that takes over from an earlier one.

    A clustering goes on as it is. ContrastDM takes over the transform, and what learned without
    labels: the coders of a ContrastDM, or the encoder of an SSCC as one more coder.

    Args:
        model: The earlier one.
        classes: Classes of the labels, for ContrastDM.
        options: What is asked for.

    Raises:
        UsageError: Options that contradict the earlier model.
    """
    _check(model, options)
    if model.method.name in CLUSTERING and options.chosen_method in CLUSTERING:
        return model
    if options.labels is None:
        classes = Classes.numbered(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        method = _heir(model.method, len(classes), options)
    return replace(model, method=method, classes=classes)


def _heir(earlier: Method, classes: int, options: TrainOptions) -> ContrastDm:
    """A ContrastDM with what an earlier model learned without labels."""
    if isinstance(earlier, ContrastDm):
        return _after_contrastdm(earlier, classes, options)
    if isinstance(earlier, Sscc) and isinstance(earlier.encoder, DenseEncoder):
        return _after_sscc(earlier, earlier.encoder, classes, options)
    raise UsageError(
        f"--init {options.init}: contrastdm takes over from contrastdm or from sscc with the "
        f"dense encoder, not from {earlier.name}"
    )


def _after_contrastdm(earlier: ContrastDm, classes: int, options: TrainOptions) -> ContrastDm:
    """Features and coders stay; without labels, pre-training goes on."""
    own = earlier.settings
    settings = replace(
        options.contrastdm_settings,
        deviations=own.deviations,
        widths=own.widths,
        coders=own.coders,
        projected=own.projected,
        guest_width=own.guest_width,
        guest_seen=own.guest_seen,
        pretrained=options.labels is not None and own.is_pretrained,
    )
    heir = ContrastDm(earlier.components, classes, settings)
    heir.space.load_state_dict(earlier.space.state_dict())
    heir.parts.coders.load_state_dict(earlier.parts.coders.state_dict())
    if heir.parts.guest is not None and earlier.parts.guest is not None:
        heir.parts.guest.load_state_dict(earlier.parts.guest.state_dict())
    return heir


def _after_sscc(
    earlier: Sscc, encoder: DenseEncoder, classes: int, options: TrainOptions
) -> ContrastDm:
    """The encoder of the clustering is one more coder."""
    settings = replace(
        options.contrastdm_settings, guest_width=encoder.features, guest_seen=encoder.components
    )
    heir = ContrastDm(earlier.components, classes, settings)
    if heir.parts.guest is not None:
        heir.parts.guest.load_state_dict(encoder.state_dict())
    return heir


def _check(model: FittedModel, options: TrainOptions) -> None:
    """Refuse settings that differ from those of the model to go on from."""
    config, name = model.method.config(), model.method.name
    clustering = name in CLUSTERING and options.chosen_method in CLUSTERING
    if name in ("svm", "forest") or options.method in ("svm", "forest"):
        raise UsageError(f"--init {options.init}: svm and forest are always fitted afresh")
    if options.method in CLUSTERING and not clustering:
        raise UsageError(f"--method {options.method} does not go on from {name}: {options.init}")
    options.check_method(name if clustering else "contrastdm")
    settled: dict[str, tuple[object, object]] = {
        "transform": (options.kind, model.transform.kind),
        "components": (options.components, model.transform.components),
        "bidx": (options.bands, None),
    }
    if clustering:
        settled |= {
            "method": (options.method, name),
            "classes": (options.classes, model.method.classes),
            "recipe": (options.recipe, None),
            "smoothing": (options.smoothing, config.get("smoothing")),
            "teacher": (options.teacher, None),
            "contrast": (options.contrast, None),
        }
    for option, (asked, has) in settled.items():
        if asked is not None and asked != has:
            raise UsageError(
                f"--{option} {asked} does not go with --init {options.init}, which settles it"
                + ("" if has is None else f" as {has}")
            )
