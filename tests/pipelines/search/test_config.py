"""Settings of a search that contradict each other."""

import pytest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {}}, "space has no axis"),
        ({"space": {"epochs": {"choice": [1]}}}, "space.epochs: choice does not fit sampler grid"),
        (
            {"space": {"epochs": {"grid": [1]}}, "sampler": {"kind": "tpe"}},
            "space.epochs: grid does not fit sampler tpe",
        ),
        ({"space": {"epochs": {"grid": [1]}}, "seeds": (1, 1)}, "must name at least one seed, and each only once"),
        ({"space": {"epochs": {"grid": [1]}}, "alias": "champion"}, "add --register NAME"),
        ({"space": {"epochs": {"grid": [1]}}, "settings": {"seed": 1}}, "the seed of a trial comes from seeds"),
        (
            {"space": {"epochs": {"grid": [1]}}, "metric": "val/map"},
            "metric 'val/map' is not logged by validations of a train",
        ),
        (
            {"space": {"epochs": {"grid": [1]}}, "job": "baseline", "test": {"split": "val"}},
            "a baseline is always tested, on data.split",
        ),
        (
            {"space": {"epochs": {"grid": [1]}}, "job": "baseline", "limits": {"max_gmacs": 1}},
            "are for networks, and a baseline has none",
        ),
        (
            {"space": {"epochs": {"grid": [1]}}, "job": "baseline", "metric": "val/loss"},
            "metric 'val/loss' is not logged by validations of a baseline run: use one of test/",
        ),
        ({"space": {"seed": {"grid": [1]}}}, "space.seed: seed is not varied by a search"),
        ({"space": {"sets": {"grid": {"a": {"data.shards": ["b"]}}}}}, "space.sets: data.shards is not varied"),
        ({"space": {"wide, deep": {"grid": {"a": {}}}}}, "an axis cannot be called 'wide, deep'"),
        (
            {"space": {"net": {"grid": {"a": {}}}, "epochs": {"grid": [1], "when": {"nett": "a"}}}},
            "space.epochs.when: nett is not an earlier axis; those are: net",
        ),
        (
            {"space": {"net": {"grid": {"a": {}}}, "epochs": {"grid": [1], "when": {"net": "b"}}}},
            "space.epochs.when: net is never 'b'; its values are: a",
        ),
        (
            {"space": {"net": {"grid": {"a": {"model.kind": "c3d"}}}}, "scheduler": {"kind": "pbt"}},
            "space.net: scheduler pbt changes settings during training, and model.kind cannot",
        ),
        (
            {"space": {"optimizer.layer_decay": {"grid": [0.5, 1.0]}}, "scheduler": {"kind": "pbt"}},
            "scheduler pbt changes settings during training, and optimizer.layer_decay cannot change then",
        ),
        (
            {"space": {"optimizer.lr": {"choice": [1]}}, "sampler": {"kind": "tpe"}, "scheduler": {"kind": "pbt"}},
            "which sampler tpe cannot follow",
        ),
    ],
)
def test_settings_of_a_search_that_contradict_each_other_are_refused(changes, message, search_of):
    with pytest.raises(ValueError, match=message):
        search_of(**changes)
