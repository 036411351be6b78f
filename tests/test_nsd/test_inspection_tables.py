"""The tables of an inspection."""

import io

import pytest
from release_tree import ROIS, copy_tree, overwrite, remove
from rich.console import Console

from mmnfn.nsd.inspection import inspect
from mmnfn.nsd.inspection_tables import render


@pytest.fixture()
def tree(world, tmp_path):
    return copy_tree(world / 'nsd', tmp_path / 'nsd')


def rendered(report, width=200):
    stream = io.StringIO()
    render(report, Console(file=stream, width=width))
    return stream.getvalue()


def test_an_empty_tree(tmp_path):
    (tmp_path / 'nsddata').mkdir()
    assert 'holds nothing of any subject' in rendered(inspect(tmp_path))


def test_render(tree):
    tree.beta_file('subj01', 1).unlink()
    remove(tree, ROIS.format('subj01', 'floc-words'))
    overwrite(tree.stim_info_file, b'nothing')
    report = inspect(tree.root)
    text = rendered(report)
    rows = {line.split('│')[1].strip(): line.split('│')[2:4] for line in text.splitlines() if line.count('│') == 4}
    cells = [[cell.strip() for cell in row] for row in rows.values()]
    assert [cell.strip() for cell in rows['b3: sessions']] == ['2 of 2 (1 HDF5, 2 NIfTI)', '1 of 2 (HDF5, NIfTI)']
    assert [cell.strip() for cell in rows['floc-words']][0] == 'missing'
    assert [str(subject.union) for subject in report.subjects] in cells
    assert f'download {ROIS.format("subj01", "floc-words")}\n' in text
    assert 'no     COCO overlap and captions: problem 2\n' in text and f'2. {tree.stim_info_file} ' in text
    narrow = rendered(report, 60)
    assert text.count('Subjects in') == 1 and narrow.count('Subjects in') == 2
    assert f'download {ROIS.format("subj01", "floc-words")}\n' in narrow  # not broken, to be copied
