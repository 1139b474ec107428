"""``window_context``: windows that attend to all windows of their image, beside the plain statement of it."""

import pytest
import torch

from cliper.ops import RECIPES
from cliper.ops.attention import ablated_attention
from oracle import window_context as oracle
from segmenter_helpers import clip_encoder
from test_differential import RECIPE_OF, inputs, random_clip

# Both compute in float32 and sum in other orders; the entries of unit embeddings are compared.
TOLERANCE = 2e-5


def proxy(pixels: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """An affinity that depends on the size alone."""
    generator = torch.Generator().manual_seed(grid[0] * grid[1])
    shape = (len(pixels), grid[0] * grid[1], grid[0] * grid[1])
    return torch.rand(shape, generator=generator).mul(9).softmax(-1)


@pytest.mark.parametrize("recipe", ["conference", "preprint-h"])
@pytest.mark.parametrize("attention", ["fused", "proxy", "vanilla", "q-q", "k-k", "v-v"])
def test_embeddings_equal_the_plain_statement(attention: str, recipe: str) -> None:
    model, grid = random_clip(16, 3, seed=5), (9, 16)  # windows of 7 x 7 patches, three of four overlap
    pixels, _, _ = inputs(16, grid, seed=2)
    encoder = clip_encoder(model)
    [features] = encoder.encode_images(
        pixels[None],
        recipe=RECIPES[recipe],
        attention=proxy if attention == "proxy" else attention,
        layers=range(3),
        window=112,
        window_context=True,
    )
    with torch.no_grad():
        affinity = proxy(pixels[None], grid)[0]
        expected = oracle.embeddings(model, pixels, attention, 112, RECIPE_OF[recipe], affinity)
    assert features.window_embeddings is not None
    torch.testing.assert_close(features.window_embeddings, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("attention", ["fused", "k-k", "identity"])
def test_context_of_a_single_window_is_the_window(attention: str) -> None:
    pixels, _, _ = inputs(16, (5, 6), seed=3)
    encoder = clip_encoder(random_clip(16, 3, seed=4))
    alone, context = (
        encoder.encode_images(
            pixels[None],
            recipe=RECIPES["conference"],
            attention=attention,
            layers=[2],
            window=112,
            window_context=window_context,
        )[0].window_embeddings
        for window_context in (False, True)
    )
    torch.testing.assert_close(alone, context, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("kind", "pair"), [("vanilla", (0, 1)), ("q-q", (0, 0)), ("k-k", (1, 1)), ("v-v", (2, 2))])
def test_attention_to_a_context_is_a_softmax_over_its_tokens(kind: str, pair: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(7)
    own = [torch.randn(2, 3, 5, 4, generator=generator) for _ in range(3)]
    context = [torch.randn(2, 3, 11, 4, generator=generator) for _ in range(3)]
    scores = own[pair[0]].double() @ context[pair[1]].double().mT / 2
    expected = scores.softmax(-1)
    query, key, value = own
    mixed, attended = ablated_attention(kind, query, key, value, context)
    torch.testing.assert_close(mixed, (expected @ context[2].double()).float(), atol=1e-5, rtol=0)  # float32
    torch.testing.assert_close(attended, expected.mean(1).float(), atol=1e-5, rtol=0)
