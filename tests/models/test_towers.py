import torch

from models.config import ModelConfig
from models.towers import OutputLayout, Towers

# Terms of the spec, scene by scene: list click, list play, list like, full play, full like.
# Objectives by position: like 0, click 1, play 2. Scenes: list 0, none 1, full 2.


def test_towers_per_objective_have_a_column_for_each_objective(spec):
    layout = OutputLayout.from_spec(spec, "objective")
    assert layout.widths == (1, 1, 1)
    assert [(t.scene, t.objective, t.column) for t in layout.terms] == [
        (0, 1, 1),
        (0, 2, 2),
        (0, 0, 0),
        (2, 2, 2),
        (2, 0, 0),
    ]
    assert [t.weight for t in layout.terms] == [1.0, 0.5, 4.0, 2.0, 3.0]


def test_towers_per_scene_have_a_column_for_each_term_and_none_for_a_scene_without_objectives(spec):
    layout = OutputLayout.from_spec(spec, "scene")
    assert layout.widths == (3, 2)
    assert [(t.scene, t.objective, t.column) for t in layout.terms] == [
        (0, 1, 0),
        (0, 2, 1),
        (0, 0, 2),
        (2, 2, 3),
        (2, 0, 4),
    ]


SCENES = torch.tensor(
    [
        [True, False, False],  # list only
        [False, False, True],  # full only
        [True, True, True],  # both: list comes first
        [False, True, False],  # a scene that learns nothing
        [False, False, False],  # no scene at all
    ]
)


def test_select_takes_the_first_scene_that_contains_the_row_else_the_first_that_learns_it(spec):
    outputs = 10 * torch.arange(5)[:, None] + torch.arange(5)  # row r, column c: 10 r + c
    selected = OutputLayout.from_spec(spec, "scene").select(outputs, SCENES)
    # Columns by objective: like 2 (list) or 4 (full), click 0 (list), play 1 (list) or 3 (full).
    assert selected.tolist() == [[2, 0, 1], [14, 10, 13], [22, 20, 21], [32, 30, 31], [42, 40, 41]]


def test_select_with_towers_per_objective_changes_nothing(spec):
    outputs = torch.randn(5, 3)
    assert torch.equal(OutputLayout.from_spec(spec, "objective").select(outputs, SCENES), outputs)


def test_each_tower_sees_its_own_representation_and_fills_its_own_columns(spec):
    torch.manual_seed(0)
    towers = Towers(4, OutputLayout.from_spec(spec, "scene"), ModelConfig(tower=(6,)))
    inputs = [torch.randn(2, 4), torch.randn(2, 4)]
    columns = []
    for tower, x in zip(towers.towers, inputs, strict=True):
        h = (x @ tower.hidden[0].weight.T + tower.hidden[0].bias).clamp(min=0)
        columns.append(h @ tower.output.weight.T + tower.output.bias)
    result = towers(inputs)
    assert result.shape == (2, 5)
    torch.testing.assert_close(result[:, :3], columns[0])
    torch.testing.assert_close(result[:, 3:], columns[1])
