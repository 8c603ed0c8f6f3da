from dataclasses import replace
from pathlib import Path

import pytest

from hsiclust.errors import UsageError
from hsiclust.models.contrastdm_settings import ContrastDmConfig
from hsiclust.trainoptions import TrainOptions

LABELS = Path("labels.tif")


def test_the_method_fits_what_there_is_to_learn_from() -> None:
    assert TrainOptions().chosen_method == "sscc"
    assert TrainOptions(labels=LABELS).chosen_method == "contrastdm"
    assert TrainOptions(labels=LABELS, method="svm").chosen_method == "svm"
    assert TrainOptions(method="contrastdm").chosen_method == "contrastdm"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"method": "kmeans", "labels": LABELS}, "--labels belongs to contrastdm, svm, forest"),
        ({"labels": LABELS, "classes": 5}, "--classes belongs to sscc, kmeans; contrastdm"),
        ({"labels": LABELS, "method": "svm", "classes": 5}, "--classes .* svm has none"),
        ({"labels": LABELS, "steps": 5}, "--steps belongs to sscc, kmeans"),
        ({"labels": LABELS, "epochs": 5.0}, "--epochs belongs to sscc, kmeans"),
        ({"labels": LABELS, "match_to": LABELS}, "--match-to belongs to sscc, kmeans"),
        ({"labels": LABELS, "recipe": "paper"}, "--recipe belongs to sscc"),
        ({"labels": LABELS, "smoothing": 1.0}, "--smoothing belongs to kmeans"),
        ({"labels": LABELS, "method": "svm", "diffusion": False}, "--diffusion .* contrastdm"),
        ({"labels": LABELS, "method": "forest", "diffusion": True}, "--diffusion .* contrastdm"),
        ({"labels": LABELS, "synthetic": 5}, "--synthetic says how many .* --diffusion"),
        ({"method": "kmeans", "diffusion": True}, "--diffusion belongs to contrastdm"),
        ({"method": "sscc", "pretraining": False}, "--pretraining belongs to contrastdm"),
        ({"method": "svm"}, "svm learns from labels"),
        ({"method": "forest"}, "forest learns from labels"),
        ({"method": "contrastdm", "pretraining": False}, "nothing can be learned"),
        ({"field": "crop"}, "--field says how to use --labels"),
        ({"layer": "crops"}, "--layer says how to use --labels"),
        ({"split": "random"}, "--split says how to use --labels"),
        ({"per_class": 5}, "--per-class says how to use --labels"),
        ({"labels": LABELS, "split": "half"}, "'half' is unknown: separated, random or none"),
        ({"labels": LABELS, "per_class": 0}, "per_class must be positive"),
        ({"labels": LABELS, "synthetic": -1}, "-1 synthetic features a class"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said) as found:
        replace(TrainOptions(), **wrong)
    assert "\n" not in str(found.value)


def test_parts_of_contrastdm_are_asked_for() -> None:
    asked = TrainOptions(labels=LABELS)
    plain = asked.contrastdm_settings
    assert plain == ContrastDmConfig()
    assert plain.labelled
    assert not TrainOptions(method="contrastdm").contrastdm_settings.labelled
    without = replace(asked, pretraining=False).contrastdm_settings
    assert not without.is_pretrained
    on = replace(asked, diffusion=True).contrastdm_settings
    assert on.diffusion_steps > 0
    assert on.refined
    assert on.synthetic > 0
    off = replace(asked, diffusion=False, contrastdm=on).contrastdm_settings
    assert (off.diffusion_steps, off.refined, off.synthetic) == (0, False, 0)
    assert replace(asked, diffusion=True, synthetic=7).contrastdm_settings.synthetic == 7
    own = ContrastDmConfig(steps=3)
    assert replace(asked, contrastdm=own).contrastdm_settings == own


def test_supervised_methods_see_more_components_than_clusterings() -> None:
    supervised = TrainOptions(labels=LABELS).transform
    assert supervised == TrainOptions(labels=LABELS, method="svm").transform
    assert supervised.kind == "mnf"
    assert not supervised.whiten
    assert TrainOptions(labels=LABELS, kind="pca", components=5).transform.kind == "pca"
    assert TrainOptions(labels=LABELS, components=5).transform.components == 5
