import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from t3d_core.models import build_model
from t3d_core.training.checkpoint import (
    find_weights,
    initialize_from,
    load_model,
    load_training_state,
    save_training_state,
    save_weights,
)
from t3d_core.training.lineage import TrainingStep
from t3d_core.training.optimization import Schedule, build_sgd
from t3d_core.training.weights_card import WeightsCard, read_card

SMALL = {
    "ttl_preset": "thirds",
    "temporal_depths": ((1, 3), (1, 3)),
    "growth_rate": 4,
    "block_config": (1, 1, 1),
    "num_init_features": 8,
    "bn_size": 2,
}
CLASSES = ("jump", "run")
CARD = WeightsCard(
    model_kind="t3d",
    model_arguments=SMALL,
    class_names=CLASSES,
    num_frames=16,
    frame_stride=2,
    short_side=37,
    crop_size=32,
    short_video="loop",
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    mirrored_classes=(("jump", "run"),),
    lineage=(TrainingStep("transfer", ("videos",), 1, is_labelled=False, sketch=("01", "23")),),
)


def new_model(class_names=CLASSES, *, seed=0, **changed):
    torch.manual_seed(seed)
    model = build_model("t3d", num_classes=len(class_names), **(SMALL | changed))
    model.train()(torch.randn(2, 3, 16, 32, 32))  # batch statistics that are not those of a new network
    return model


def saved(folder, class_names=CLASSES, *, seed=0):
    model, path = new_model(class_names, seed=seed), folder / "model.safetensors"
    save_weights(model, path, card=replace(CARD, class_names=class_names))
    return model, path


def are_equal(state, other):
    return state.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def test_a_network_comes_back_bit_for_bit_with_its_card_and_ready_to_predict(tmp_path):
    model, path = saved(tmp_path)
    loaded, card = load_model(path)
    assert card == CARD
    assert not loaded.training
    assert are_equal(loaded.state_dict(), model.state_dict())
    clip_BCTHW = torch.randn(1, 3, 16, 32, 32)
    assert torch.equal(loaded(clip_BCTHW), model.eval()(clip_BCTHW))


def test_reading_the_card_alone_gives_what_was_written(tmp_path):
    assert read_card(saved(tmp_path)[1]) == CARD


def test_a_card_of_an_older_version_has_its_last_training_as_lineage(tmp_path):
    old = asdict(replace(CARD, run_id="0123")) | {"datasets": ["ucf101"], "fold": 2}
    del old["lineage"], old["mirrored_classes"]
    save_file({"weight": torch.zeros(1)}, tmp_path / "old.safetensors", metadata={"t3d": json.dumps(old)})
    step = TrainingStep("train", ("ucf101",), 2, is_labelled=True, run_id="0123")
    assert read_card(tmp_path / "old.safetensors") == replace(CARD, run_id="0123", lineage=(step,), mirrored_classes=())


def test_a_classifier_takes_all_but_the_head_from_a_student_without_one(tmp_path):
    student, path = saved(tmp_path, (), seed=1)
    classifier = new_model(seed=2)
    head = classifier.classifier.weight.clone()
    assert not initialize_from(classifier, path, class_names=CLASSES)
    assert are_equal(classifier.features.state_dict(), student.features.state_dict())
    assert torch.equal(classifier.classifier.weight, head)


@pytest.mark.parametrize(
    ("class_names", "is_copied"), [(CLASSES, True), (("run", "jump"), False), (("jump", "run", "sit"), False)]
)
def test_the_head_is_copied_for_the_very_same_classes_only(class_names, is_copied, tmp_path):
    pretrained, path = saved(tmp_path, seed=1)
    model = new_model(class_names, seed=2)
    head = model.classifier.weight.clone()
    assert initialize_from(model, path, class_names=class_names, replace_head=True) is is_copied
    assert torch.equal(model.classifier.weight, pretrained.classifier.weight if is_copied else head)
    assert are_equal(model.features.state_dict(), pretrained.features.state_dict())


def test_the_unicode_form_of_a_name_makes_no_other_class(tmp_path):
    _, path = saved(tmp_path, ("Cafe\u0301", "run"), seed=1)
    assert initialize_from(new_model(("Caf\u00e9", "run"), seed=2), path, class_names=("Caf\u00e9", "run"))


def test_weights_for_other_classes_are_refused_unless_the_head_may_be_replaced(tmp_path):
    _, path = saved(tmp_path, seed=1)
    model = new_model(("jump", "run", "sit"), seed=2)
    with pytest.raises(
        ValueError, match=r"is for 2 classes \(jump, run\), the data have 3 classes .*--replace_head true"
    ):
        initialize_from(model, path, class_names=("jump", "run", "sit"))


def test_the_first_tensor_that_differs_is_named_with_both_shapes(tmp_path):
    _, path = saved(tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"expected features\.\S+ \([\d, ]+\), got (none|\([\d, ]+\))"):
        initialize_from(new_model(seed=2, growth_rate=6), path, class_names=CLASSES)


def test_weights_of_one_form_of_the_transitions_load_in_every_other(tmp_path):
    trained, path = saved(tmp_path, seed=1)
    clip_BCTHW = torch.randn(2, 3, 16, 32, 32)
    for forms in ("literal", "pooled", "averaged", "space_to_depth"):
        model = new_model(seed=2, transition_forms=forms)
        assert initialize_from(model, path, class_names=CLASSES)
        torch.testing.assert_close(model.eval()(clip_BCTHW), trained.eval()(clip_BCTHW), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changed", [{"growth_rate": 6}, {"block_config": (1, 1, 2)}])
def test_weights_of_another_network_are_refused_and_nothing_is_copied(changed, tmp_path):
    _, path = saved(tmp_path, seed=1)
    model = new_model(seed=2, **changed)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"model\.safetensors holds a t3d with .*not the network to train"):
        initialize_from(model, path, class_names=CLASSES)
    assert are_equal(model.state_dict(), before)


def test_weights_that_are_not_those_of_their_card_are_refused_with_the_first_tensor(tmp_path):
    model = new_model(("jump", "run", "sit"))
    save_weights(model, tmp_path / "model.safetensors", card=CARD)
    with pytest.raises(
        ValueError, match=r"does not hold the t3d .* expected classifier\.weight \(2, \d+\), got \(3, \d+\)"
    ):
        load_model(tmp_path / "model.safetensors")


def test_a_card_with_an_argument_of_another_version_is_refused(tmp_path):
    card = replace(CARD, model_arguments=CARD.model_arguments | {"num_heads": 8})
    save_weights(new_model(), tmp_path / "model.safetensors", card=card)
    with pytest.raises(ValueError, match=r"describes a t3d that cannot be built: .*num_heads"):
        load_model(tmp_path / "model.safetensors")


def test_a_damaged_file_is_refused(tmp_path):
    _, path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        load_model(path)


@pytest.mark.parametrize(
    "metadata",
    [None, {"format": "pt"}, {"t3d": json.dumps({"model_kind": "t3d"})}, {"t3d": "no JSON"}],
)
def test_a_safetensors_file_of_another_project_is_refused(metadata, tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "foreign.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match=r"foreign\.safetensors does not describe its network"):
        read_card(tmp_path / "foreign.safetensors")


def test_a_path_that_is_no_file_is_refused(tmp_path):
    for path in (tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(ValueError, match="cannot be read"):
            read_card(path)


@pytest.mark.parametrize("name", ["model.safetensors", "student.safetensors"])
def test_the_weights_of_a_folder_are_found(name, tmp_path):
    (tmp_path / name).touch()
    assert find_weights(tmp_path) == find_weights(tmp_path / name) == tmp_path / name


def test_a_folder_without_weights_and_a_missing_path_are_refused(tmp_path):
    (tmp_path / "training_state.pt").touch()
    with pytest.raises(ValueError, match=r"holds none of model\.safetensors, student\.safetensors"):
        find_weights(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        find_weights(tmp_path / "nothing")


def test_writing_leaves_the_weights_file_and_nothing_else(tmp_path):
    _, path = saved(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_keeps_the_file_before_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    _, path = saved(tmp_path)
    before = path.read_bytes()

    def fill_the_disk(path, _):
        path.touch()
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        saved(tmp_path, seed=1)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["constant", "step", "plateau", "cosine", "one_cycle"])
def test_the_state_of_a_run_comes_back_from_its_folder(kind, tmp_path):
    model = new_model()
    optimizer = build_sgd(model.parameters(), lr=0.1, momentum=0.9, is_nesterov=True, weight_decay=1e-4)
    schedule = Schedule(optimizer, kind, num_steps=10)
    model(torch.randn(2, 3, 16, 32, 32)).sum().backward()
    optimizer.step()
    schedule.after_validation(1.5)
    state = {"step": 3, "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    save_training_state(state, tmp_path)
    loaded = load_training_state(tmp_path)
    assert (loaded["step"], loaded["schedule"]) == (3, state["schedule"])
    momenta, expected = loaded["optimizer"]["state"], state["optimizer"]["state"]
    assert momenta.keys() == expected.keys()
    assert all(torch.equal(momenta[i]["momentum_buffer"], expected[i]["momentum_buffer"]) for i in expected)
