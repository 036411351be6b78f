"""The temperature and its limit."""

import pytest
import torch

from mmnfn.losses import Temperature


@pytest.mark.parametrize('learnable', [True, False])
def test_starts_at_its_value(learnable):
    assert float(Temperature(0.07, learnable)()) == pytest.approx(0.07, rel=1e-6)


def test_inverse_stays_at_most_100_and_can_come_back():
    temperature = Temperature(0.02, learnable=True)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=100.0)
    temperature().backward()  # lowers sigma
    optimizer.step()
    assert float(temperature.log_scale.detach().exp()) > 100
    assert float(temperature.eval()()) == pytest.approx(0.01, rel=1e-5)
    optimizer.zero_grad()
    (-temperature.train()()).backward()
    optimizer.step()
    assert float(temperature()) > 0.011


@pytest.mark.parametrize('value, learnable', [(0.0, True), (-1.0, False), (0.001, True)])
def test_impossible_values_are_refused(value, learnable):
    with pytest.raises(ValueError, match='temperature'):
        Temperature(value, learnable)


def test_the_smallest_learnable_value_is_legal():
    assert float(Temperature(0.01, learnable=True)()) == pytest.approx(0.01, rel=1e-6)


def test_evaluation_leaves_the_parameter_alone():
    temperature = Temperature(0.02, learnable=True).eval()
    temperature.log_scale.data.fill_(7.0)  # beyond the limit, as after an optimiser step
    assert float(temperature()) == pytest.approx(0.01, rel=1e-5)
    assert float(temperature.log_scale) == 7
    temperature.train()()
    assert float(temperature.log_scale.detach().exp()) == pytest.approx(100, rel=1e-5)


def test_twice_in_a_step_beyond_the_limit():
    """As a model does that calls itself twice; both gradients arrive."""
    temperature = Temperature(0.02, learnable=True)
    temperature.log_scale.data.fill_(7.0)
    (temperature() + temperature()).backward()
    assert float(temperature.log_scale.grad) == pytest.approx(-0.02, rel=1e-5)


def test_it_can_be_compiled():
    plain, other = Temperature(0.02, learnable=True), Temperature(0.02, learnable=True)
    compiled = torch.compile(other, backend='eager')
    for temperature in (plain, compiled):
        (temperature() + temperature()).backward()
    assert torch.equal(plain.log_scale.grad, other.log_scale.grad)


def test_fixed_may_be_small():
    assert float(Temperature(0.001, learnable=False)()) == pytest.approx(0.001)
