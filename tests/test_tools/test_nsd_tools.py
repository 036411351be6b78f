"""The commands that make and prepare data: what they write, and what they say about wrong arguments."""

import pytest

from mmnfn.nsd import ROIStore, StimulusImages


def test_from_nothing_to_a_store(run, tmp_path):
    size = ('--subjects', 1, '--sessions', 1, '--voxel-mm', 8, '--stimulus-size', 32, '--workers', 1)
    code, out, _ = run('simulate_nsd', tmp_path / 'sim', *size)
    assert code == 0 and 'subj01: 250 images' in out
    code, out, _ = run('prepare_nsd', tmp_path / 'sim/nsd', tmp_path / 'store', '--image-size', 16)
    assert code == 0 and f'wrote {tmp_path}/store/subj01.h5' in out
    store, images = ROIStore(tmp_path / 'store/subj01.h5'), StimulusImages(tmp_path / 'store/images_16.h5')
    assert len(store.image_id) == 250 and images[int(store.image_id[7])].shape == (16, 16, 3)
    code, _, err = run('simulate_nsd', tmp_path / 'sim')
    assert code == 1 and '--overwrite' in err


@pytest.mark.parametrize(
    'arguments, named',
    [
        (('nowhere', 'store'), 'nowhere does not exist'),
        (('{world}', 'store', '--subjects', '7'), 'subj07'),
        (('{world}', 'store', '--subjects', '12'), 'subj12'),
        (('{world}', 'store', '--subjects', '2', '--rois', 'V1'), "ROI class is 'V1'"),
        (('{world}', 'store', '--beta-version', 'b1'), 'b1'),
        (('{world}', 'store', '--max-sessions', '0'), 'max_sessions is 0'),
        (('{world}', 'store', '--image-size', '3'), '--image-size is 3'),
    ],
)
def test_errors_of_preparation_are_one_line(run, world, tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    code, _, err = run('prepare_nsd', *(a.format(world=world / 'nsd') for a in arguments))
    assert code == 1 and named in err and err.count('\n') == 1
    assert not list(tmp_path.rglob('*.h5'))


@pytest.mark.parametrize(
    'arguments, named',
    [
        (('--subjects', '9'), 'subjects is 9'),
        (('--images', 'photos'), 'images and annotations belong together'),
        (('--images', 'photos', '--annotations', 'a.json'), '--images: photos is no folder'),
    ],
)
def test_errors_of_simulation_are_one_line(run, tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    code, _, err = run('simulate_nsd', 'sim', *arguments)
    assert code == 1 and named in err and err.count('\n') == 1
    assert list(tmp_path.iterdir()) == []
