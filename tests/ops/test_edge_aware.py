"""Edge-aware smoothing against a direct solve in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cliper.errors import ShapeError
from cliper.ops import smooth_along_edges

# The solver stops at a relative residual of 1e-6; the condition number of the scaled matrices here is below 50.
TOLERANCE = 1e-4


def plain(maps: Tensor, image: Tensor, weight: float, sigma: float) -> Tensor:
    height, width = image.shape[1:]
    laplacian = torch.zeros(height * width, height * width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            for v, u in ((y, x + 1), (y + 1, x)):
                if v == height or u == width:
                    continue
                difference = image[:, y, x].double() - image[:, v, u].double()
                edge = torch.exp(-(difference @ difference) / (2 * sigma**2))
                p, q = y * width + x, v * width + u
                laplacian[p, p] += edge
                laplacian[q, q] += edge
                laplacian[p, q] -= edge
                laplacian[q, p] -= edge
    y = F.interpolate(maps[None], size=(height, width), mode="bilinear", align_corners=False)[0].double()
    matrix = torch.eye(height * width, dtype=torch.float64) + weight * laplacian
    return torch.linalg.solve(matrix, y.flatten(1).T).T.reshape(-1, height, width)


@pytest.mark.parametrize(("weight", "sigma"), [(0.5, 0.1), (5.0, 0.3), (5.0, 10.0)])
def test_equals_a_direct_solve(weight: float, sigma: float) -> None:
    maps, image = torch.rand(3, 4, 5), torch.rand(3, 9, 13)
    got = smooth_along_edges(maps, image, weight=weight, sigma=sigma)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), plain(maps, image, weight, sigma), atol=TOLERANCE, rtol=0)


def test_equals_a_direct_solve_with_a_large_weight_and_more_iterations() -> None:
    maps, image = torch.rand(2, 4, 5), torch.rand(3, 9, 13)
    got = smooth_along_edges(maps, image, weight=300, sigma=0.5, iterations=500)
    torch.testing.assert_close(got.double(), plain(maps, image, 300, 0.5), atol=1e-3, rtol=0)


def test_weight_0_gives_the_resized_maps() -> None:
    maps, image = torch.rand(2, 4, 5), torch.rand(3, 9, 13)
    resized = F.interpolate(maps[None], size=(9, 13), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(smooth_along_edges(maps, image, weight=0), resized, atol=1e-7, rtol=0)


def test_constants_stay_and_values_stay_in_range() -> None:
    maps, image = torch.rand(2, 4, 5), torch.rand(3, 9, 13)
    maps[0] = 0.7
    got = smooth_along_edges(maps, image, weight=5, sigma=0.3)
    torch.testing.assert_close(got[0], torch.full_like(got[0], 0.7), atol=TOLERANCE, rtol=0)
    assert bool((got[1] >= maps[1].amin() - TOLERANCE).all() and (got[1] <= maps[1].amax() + TOLERANCE).all())


def test_a_border_moves_to_the_edge_of_the_image() -> None:
    """The map changes one column beside the image's edge; after smoothing each half has one side of 0.5."""
    image = torch.zeros(3, 8, 12)
    image[:, :, 6:] = 1
    maps = torch.zeros(1, 8, 12)
    maps[:, :, 7:] = 1
    got = smooth_along_edges(maps, image, weight=50, sigma=0.1)
    assert torch.equal(got[0] > 0.5, image[0] > 0.5)


def test_large_images_are_reduced_and_classes_do_not_depend_on_each_other() -> None:
    maps, image = torch.rand(3, 4, 5), torch.rand(3, 60, 90)
    got = smooth_along_edges(maps, image, weight=5, max_pixels=600)
    assert got.shape == (3, 20, 30)
    for index in range(3):
        alone = smooth_along_edges(maps[index : index + 1], image, weight=5, max_pixels=600)
        torch.testing.assert_close(got[index], alone[0], atol=TOLERANCE, rtol=0)
    assert smooth_along_edges(maps, torch.rand(3, 1, 500), weight=5, max_pixels=100).shape == (3, 1, 100)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"got \[4, 5\], \[3, 9, 9\]"):
        smooth_along_edges(torch.rand(4, 5), torch.rand(3, 9, 9), weight=1)
