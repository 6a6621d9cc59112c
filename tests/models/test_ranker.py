import pytest
import torch
from torchrec import KeyedJaggedTensor

from models.config import ModelConfig
from models.heads import HEADS
from models.losses import Objectives
from models.ranker import Ranker

ROWS = {"tag": 4, "video": 7}
CPU = torch.device("cpu")
B = 4


def batch(spec) -> tuple[KeyedJaggedTensor, torch.Tensor]:
    """One id in every bag."""
    names = list(spec.sparse_features)
    sparse = KeyedJaggedTensor(
        keys=names,
        values=torch.arange(len(names) * B) % 4,
        lengths=torch.ones(len(names) * B, dtype=torch.int64),
    )
    return sparse, torch.arange(2.0 * B).reshape(B, 2)


def test_the_whole_model_is_embeddings_and_dense_features_then_bottom_head_and_towers(spec):
    torch.manual_seed(0)
    config = ModelConfig(head="shared_bottom", bottom=(5,), expert=(4,), tower=(3,))
    ranker = Ranker(spec, ROWS, config, CPU)
    sparse, dense = batch(spec)

    def layer(linear, x):
        return x @ linear.weight.T + linear.bias

    tag, video = (ranker.embeddings.tables.embedding_bags[name].weight for name in ("tag", "video"))
    ids = torch.arange(4)  # of every feature: video, tags, watched, main_tag
    x = torch.cat([video[ids], tag[ids], video[ids], tag[ids], dense], dim=1)
    network = ranker.network
    h = layer(network.head.network[0], layer(network.bottom[0], x).relu()).relu()
    expected = [layer(tower.output, layer(tower.hidden[0], h).relu()) for tower in network.towers.towers]
    torch.testing.assert_close(ranker(sparse, dense), torch.cat(expected, dim=1))


@pytest.mark.parametrize("towers", ["objective", "scene"])
@pytest.mark.parametrize("head", list(HEADS))
def test_every_head_with_either_kind_of_tower_trains_every_parameter(spec, head, towers):
    torch.manual_seed(0)
    config = ModelConfig(head=head, towers=towers, bottom=(8,), expert=(8, 8), tower=(8,), activation="gelu")
    ranker = Ranker(spec, ROWS, config, CPU)
    outputs = ranker(*batch(spec))
    assert outputs.shape == (B, 3 if towers == "objective" else 5)
    objectives = Objectives(spec, ranker.layout)
    everything = torch.ones(B, 3, dtype=torch.bool)
    sums = objectives.weighted_sums(outputs, torch.ones(B, 3), everything, everything, torch.ones(B))
    objectives.combine(*sums).backward()
    for name, parameter in ranker.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_tables_can_be_left_without_memory_while_the_rest_has_it(spec):
    ranker = Ranker(spec, ROWS, ModelConfig(), torch.device("meta"))
    meta = {name for name, parameter in ranker.named_parameters() if parameter.is_meta}
    assert meta == {f"embeddings.tables.embedding_bags.{name}.weight" for name in ROWS}


def test_the_same_seed_makes_the_same_dense_network_whatever_the_tables_and_wherever_they_are(spec):
    dense = []
    for rows, device in ((ROWS, CPU), ({"tag": 9, "video": 90}, CPU), (ROWS, torch.device("meta"))):
        torch.manual_seed(0)
        ranker = Ranker(spec, rows, ModelConfig(), device)
        dense.append({name: p for name, p in ranker.named_parameters() if not name.startswith("embeddings.")})
    for name, parameter in dense[0].items():
        assert torch.equal(parameter, dense[1][name]), name
        assert torch.equal(parameter, dense[2][name]), name
