import math

import pytest
import torch

from models.losses import Objectives, row_loss, row_prediction
from models.towers import OutputLayout
from pipeline.spec.objectives import BinaryObjective, RegressionObjective

NAN, LN2, LN3 = math.nan, math.log(2), math.log(3)

# Objectives like, click, play (seconds, learned as log1p); scenes list, none, full. Rows:
#   0 and 1 are in `list` and have a click label; 2 is in both scenes and was played; 3 is in `full` and was played,
#   its click label belongs to no term; 4 is in no scene that learns; 5 is in `list` and has only a like label.
LABELS = torch.tensor([[NAN, 1, NAN], [NAN, 0, NAN], [NAN, NAN, math.e - 1], [NAN, 1, 0.0], [1, 1, 7.0], [1, NAN, NAN]])
MASKS = ~LABELS.isnan()
SCENES = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0]]).bool()
WEIGHT = torch.tensor([1.0, 2.0, 1.0, 2.0, 5.0, 0.25])
# A tower per objective: columns like, click, play.
OUTPUTS = torch.tensor([[9, 0, 9], [9, LN3, 9], [9, 9, 3], [9, 9, 0.5], [9, 9, 9], [0, 9, 9]])
# A tower per scene: columns list click, list play, list like, full play, full like; only row 2's plays differ.
OUTPUTS_BY_SCENE = torch.tensor(
    [[0, 9, 9, 9, 9], [LN3, 9, 9, 9, 9], [9, 3, 9, 2, 9], [9, 9, 9, 0.5, 9], [9, 9, 9, 9, 9], [9, 9, 0, 9, 9]]
)


def test_the_loss_of_two_scenes_with_masks_and_weights_is_the_one_worked_out_by_hand(spec):
    objectives = Objectives(spec, OutputLayout.from_spec(spec, "objective"))
    numerators, denominators = objectives.weighted_sums(OUTPUTS, LABELS, MASKS, SCENES, WEIGHT)
    # list click: row 0 has p = 1/2, y = 1: ln 2; row 1 has p = 3/4, y = 0: -ln(1/4) = 2 ln 2, weighted 2.
    # list play: row 2 has target log1p(e - 1) = 1 and output 3: 4.
    # list like: row 5 has p = 1/2: ln 2, weighted 0.25.
    # full play: row 2 as above; row 3 has target 0 and output 0.5: 0.25, weighted 2.
    # full like: no row.
    torch.testing.assert_close(numerators, torch.tensor([5 * LN2, 4.0, LN2 / 4, 4.5, 0.0]))
    torch.testing.assert_close(denominators, torch.tensor([3.0, 1.0, 0.25, 3.0, 0.0]))
    # W is 1, 0.5, 4, 2, 3, and a denominator below 1 counts as 1:
    # 1 * 5 ln 2 / 3 + 0.5 * 4 / 1 + 4 * (ln 2 / 4) / 1 + 2 * 4.5 / 3 + 3 * 0 / 1.
    loss = objectives.combine(numerators, denominators)
    torch.testing.assert_close(loss, torch.tensor(5 * LN2 / 3 + 2 + LN2 + 3))


def test_with_towers_per_scene_each_scene_learns_from_its_own_column(spec):
    objectives = Objectives(spec, OutputLayout.from_spec(spec, "scene"))
    sums = objectives.weighted_sums(OUTPUTS_BY_SCENE, LABELS, MASKS, SCENES, WEIGHT)
    # As above, except full play: there row 2 has output 2: 1 + 2 * 0.25 = 1.5, and 2 * 1.5 / 3 = 1.
    torch.testing.assert_close(sums[0], torch.tensor([5 * LN2, 4.0, LN2 / 4, 1.5, 0.0]))
    torch.testing.assert_close(objectives.combine(*sums), torch.tensor(5 * LN2 / 3 + 2 + LN2 + 1))


@pytest.mark.parametrize("cuts", [[6], [3, 3], [1, 4, 1], [0, 6]])
def test_ranks_that_share_a_batch_have_losses_and_gradients_that_add_up_to_its_own(spec, cuts):
    objectives = Objectives(spec, OutputLayout.from_spec(spec, "objective"))

    def split_loss(outputs):
        batch = zip(*(x.split(cuts) for x in (outputs, LABELS, MASKS, SCENES, WEIGHT)), strict=True)
        ranks = [objectives.weighted_sums(*part) for part in batch]
        everywhere = torch.stack([denominators for _, denominators in ranks]).sum(dim=0)
        return sum(objectives.combine(numerators, everywhere) for numerators, _ in ranks)

    whole, parts = OUTPUTS.clone().requires_grad_(), OUTPUTS.clone().requires_grad_()
    loss = objectives.combine(*objectives.weighted_sums(whole, LABELS, MASKS, SCENES, WEIGHT))
    loss.backward()
    split = split_loss(parts)
    split.backward()
    torch.testing.assert_close(split, loss)
    torch.testing.assert_close(parts.grad, whole.grad)


def test_labels_outside_every_term_touch_neither_value_nor_gradient(spec):
    objectives = Objectives(spec, OutputLayout.from_spec(spec, "objective"))
    counted = torch.tensor([[0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]]).bool()
    results = []
    for junk in (0.0, NAN, math.inf, -5.0):
        outputs = OUTPUTS.clone().requires_grad_()
        # NaN under a false mask, and also under a true mask where the row is in no scene that learns it.
        labels = torch.where(counted, LABELS, junk)
        loss = objectives.combine(*objectives.weighted_sums(outputs, labels, MASKS, SCENES, WEIGHT))
        loss.backward()
        results.append((loss, outputs.grad))
        assert loss.isfinite()
        assert torch.equal(outputs.grad != 0, counted)
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])


def test_a_batch_without_a_single_counting_row_has_loss_and_gradient_zero(spec):
    objectives = Objectives(spec, OutputLayout.from_spec(spec, "objective"))
    outputs = OUTPUTS.clone().requires_grad_()
    nothing = torch.zeros_like(MASKS)
    loss = objectives.combine(*objectives.weighted_sums(outputs, LABELS, nothing, SCENES, WEIGHT))
    loss.backward()
    assert loss == 0
    assert torch.equal(outputs.grad, torch.zeros_like(OUTPUTS))


def test_the_loss_of_half_precision_outputs_is_computed_in_full(spec):
    objectives = Objectives(spec, OutputLayout.from_spec(spec, "objective"))
    half = OUTPUTS.bfloat16()
    numerators, _ = objectives.weighted_sums(half, LABELS, MASKS, SCENES, WEIGHT)
    assert torch.equal(numerators, objectives.weighted_sums(half.float(), LABELS, MASKS, SCENES, WEIGHT)[0])


def regression(loss: str, transform: str = "none") -> RegressionObjective:
    return RegressionObjective(kind="regression", label="y", loss=loss, transform=transform)


@pytest.mark.parametrize(
    ("objective", "output", "label", "loss"),
    [
        (regression("mse"), 5.0, 2.0, 9.0),
        (regression("mae"), -1.0, 2.0, 3.0),
        (regression("huber"), 2.5, 2.0, 0.125),  # d²/2 within 1
        (regression("huber"), 5.0, 2.0, 2.5),  # |d| - 1/2 beyond
        (regression("mae", "log1p"), 5.0, math.e - 1, 4.0),
        (BinaryObjective(kind="binary", label="y"), 200.0, 0.0, 200.0),  # no overflow
    ],
)
def test_the_loss_of_a_row(objective, output, label, loss):
    torch.testing.assert_close(row_loss(objective, torch.tensor([output]), torch.tensor([label])), torch.tensor([loss]))


@pytest.mark.parametrize(
    ("objective", "output", "prediction"),
    [
        (BinaryObjective(kind="binary", label="y"), LN3, 0.75),
        (regression("mse"), 2.5, 2.5),
        (regression("mse"), -1.0, 0.0),
        (regression("mse", "log1p"), math.log(4.0), 3.0),
        (regression("mse", "log1p"), -1.0, 0.0),
    ],
)
def test_the_prediction_of_a_row(objective, output, prediction):
    torch.testing.assert_close(row_prediction(objective, torch.tensor([output])), torch.tensor([prediction]))


def test_predict_gives_each_objective_in_its_own_unit_from_the_rows_own_scene(spec):
    objectives = Objectives(spec, OutputLayout.from_spec(spec, "scene"))
    outputs = torch.tensor([[0.0, math.log(4.0), LN3, math.log(11.0), -LN3]] * 2)
    scenes = torch.tensor([[True, False, False], [False, False, True]])
    # like, click, play: for the first row of `list`; for the second of `full`, but click is only learned on `list`.
    expected = torch.tensor([[0.75, 0.5, 3.0], [0.25, 0.5, 10.0]])
    torch.testing.assert_close(objectives.predict(outputs, scenes), expected)
