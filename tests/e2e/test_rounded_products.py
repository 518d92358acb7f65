"""How far bf16 is from float32 on the SRAM accelerator is what rounding the operands of its products costs, no more."""

import pytest
from tests.e2e.models import MODELS
from tests.e2e.rounded import distances


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_recognition_in_bf16_errs_as_rounded_operands_do(seed: int) -> None:
    """Its products in series multiply what each rounds by up to six, so that its output may be off by 2e-2.

    An independent float32 runtime that rounds the same operands is as far off. Both are nearer to each other than bf16
    is held to (1e-2); what is left between them are sums in another order, of which a rounding makes the next number.
    """
    rounding, error, difference = distances(MODELS["recognition"].source, MODELS["recognition"].inputs(seed))
    assert 1e-3 < rounding < 2.5e-2
    assert error < 1.5 * rounding
    assert difference < 1e-2
