import pytest
import torch

from megatron_lm.engines.caches import token_caches

WINDOWS = [None, 2, None]
SEEN = {None: (slice(0, 5), None), 2: (slice(3, 5), None)}


@pytest.mark.parametrize("positions", [slice(4, 5), torch.tensor([4])], ids=["slice", "index"])
def test_a_layer_reads_what_was_written_in_the_slots_that_it_sees(positions):
    caches = torch.randn(3, 2, 2, 4, 8, 6)
    before = caches.clone()
    for layer, cache in enumerate(token_caches(caches, positions, WINDOWS, SEEN)):
        key_and_value = torch.randn(8, 1, 2, 6)
        cache.write(key_and_value)
        # Rows are the groups of one sequence after those of another.
        expected = before[layer].flatten(1, 2)
        expected[:, :, 4] = key_and_value[:, 0].transpose(0, 1)
        slots = SEEN[WINDOWS[layer]][0]
        torch.testing.assert_close(torch.stack((cache.keys, cache.values)), expected[:, :, None, slots])
        torch.testing.assert_close(caches[layer].flatten(1, 2), expected)
