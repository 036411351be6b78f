"""A design file or table of trials that is damaged or does not fit the betas."""

import shutil

import numpy as np
import pytest
import scipy.io
from nsd_damage import cut, folder, gone, other_sessions, put, write
from nsd_tree import CLASSES, OWN, SHARED, change_design, difference, slow_store

from mmnfn.nsd.preparation import prepare_subject


def change(variable, function):
    """A damage that changes a variable of the design."""

    def damage(tree):
        change_design(tree, **{variable: function(scipy.io.loadmat(tree.design_file)[variable])})
        return tree.design_file

    return damage


def table(function):
    """A damage that changes the lines of responses.tsv."""

    def damage(tree):
        path = tree.responses_file('subj02')
        path.write_text(''.join(function(path.read_text().splitlines(True))))
        return path

    return damage


def of_trial(number, value):
    """Lines of responses.tsv with another id in one trial."""

    def edit(lines):
        cells = lines[number].split('\t')
        return [*lines[:number], '\t'.join([*cells[:2], value.format(cells[2]), *cells[3:]]), *lines[number + 1 :]]

    return edit


def four_sessions(tree):
    """More sessions than are planned."""
    other_sessions(tree, 2, 3, 4)
    return f'{tree.design_file} plans 2250 trials, but subj02 has 4 sessions (3000 trials)'


def often(order):
    """One image in 300 trials of the first session."""
    order[0, :750][order[0, :750] % 3 == 0] = 3
    order[0, 700:750] = 3
    return order


BAD = {
    'missing': lambda t: gone(t.design_file),
    'folder': lambda t: folder(t.design_file),
    'empty': lambda t: cut(t.design_file, 0),
    'text': lambda t: write(t.design_file, 'nothing'),
    'garbage': lambda t: write(t.design_file, bytes(range(256)) * 20),
    'cut': lambda t: cut(t.design_file, 5000),
    'cut by a byte': lambda t: cut(t.design_file, -1),
    'damaged head': lambda t: write(t.design_file, put(bytearray(t.design_file.read_bytes()), 128, 99)),
    **{f'no {name}': change(name, lambda values: None) for name in ('masterordering', 'subjectim', 'sharedix')},
    **{f'{name} is text': change(name, lambda values: 'text') for name in ('masterordering', 'subjectim', 'sharedix')},
    'order has a 0': change('masterordering', lambda order: put(order, (0, 9), 0)),
    'order beyond the images': change('masterordering', lambda order: put(order, (0, 9), OWN + 1)),
    'order has fractions': change('masterordering', lambda order: put(order.astype(float), (0, 9), 3.5)),
    'order has NaN': change('masterordering', lambda order: put(order.astype(float), (0, 9), np.nan)),
    'order is empty': change('masterordering', lambda order: order[:, :0]),
    'order is no multiple of 750': change('masterordering', lambda order: order[:, :2249]),
    'order shows an image too often': lambda t: gone(t.responses_file('subj02')) and change('masterordering', often)(t),
    'id 0': change('subjectim', lambda own: put(own, (0, 500), 0)),
    'id 73001': change('subjectim', lambda own: put(own, (0, 500), 73001)),
    'id -1': change('subjectim', lambda own: put(own, (1, 500), -1)),
    'an image twice': change('subjectim', lambda own: put(own, (1, 500), own[1, 501])),
    'no such subject': change('subjectim', lambda own: own[:1]),
    'nine subjects': change('subjectim', lambda own: np.repeat(own, 5, 0)[:9]),
    'images in three dimensions': change('subjectim', lambda own: own[None]),
    'shared images not first': change('subjectim', lambda own: own[:, ::-1]),
    'shared images of another set': change('sharedix', lambda shared: shared + 1),
    'more shared images than images': change('sharedix', lambda shared: np.arange(1, 9 * OWN)[None]),
    'no shared image': change('sharedix', lambda shared: shared[:, :0]),
    'too few trials': four_sessions,
    'table cut': table(lambda lines: lines[:700]),
    'table of another subject': lambda t: shutil.copy(t.responses_file('subj01'), t.responses_file('subj02')),
    'table without the column': table(lambda lines: [lines[0].replace('73KID', 'KID'), *lines[1:]]),
    'table without head': table(lambda lines: lines[1:]),
    'table with commas': table(lambda lines: [line.replace('\t', ',') for line in lines]),
    'table with an id of text': table(of_trial(40, 'none')),
    'table with an empty id': table(of_trial(40, '')),
    'table with a fraction': table(of_trial(40, '{}.5')),
    'table with another id': table(of_trial(750, '1500')),
    'table of 0-based ids': table(lambda lines: [lines[0], *(of_trial(0, '1')([line])[0] for line in lines[1:])]),
    'table of bytes': lambda t: write(t.responses_file('subj02'), bytes(range(256)) * 9),
    'table empty': lambda t: cut(t.responses_file('subj02'), 0),
    'table is a folder': lambda t: folder(t.responses_file('subj02')),
}


@pytest.mark.parametrize('damage', BAD.values(), ids=BAD)
def test_bad_designs_are_named_and_nothing_is_left(tree, tmp_path, damage):
    named, store = damage(tree), tmp_path / 'store'
    with pytest.raises((ValueError, OSError)) as caught:
        prepare_subject(tree, store, 'subj02', CLASSES, progress=False)
    assert str(named) in str(caught.value)
    assert not store.exists()


def test_the_wrong_trial_is_named(tree, tmp_path):
    named = table(of_trial(750, '1500'))(tree)
    with pytest.raises(ValueError, match=f'{named.name}: trial 750 of session 1 shows 73KID 1500, but the design file'):
        prepare_subject(tree, tmp_path, 'subj02', CLASSES, progress=False)


LEGAL = {
    'no table': lambda t: gone(t.responses_file('subj02')),
    'table goes on': table(lambda lines: [*lines, lines[-1], lines[-1]]),
    'order as float': change('masterordering', lambda order: order.astype(float)),
    'order as a column': change('masterordering', lambda order: order.T),
    'ids as uint16': change('subjectim', lambda own: own.astype(np.uint16)),
    'shared images in another order': change('sharedix', lambda shared: shared[:, ::-1]),
    'more variables': lambda t: change_design(t, basiccnt=np.zeros((3, 40, 12)), note='text'),
}


@pytest.mark.parametrize('harmless', LEGAL.values(), ids=LEGAL)
def test_legal_designs_give_the_same_store(tiny, tree, tmp_path, harmless):
    harmless(tree)
    path = prepare_subject(tree, tmp_path / 'store', 'subj02', CLASSES, progress=False)
    assert difference(path, slow_store(tiny.root, 'subj02')) == ''


def test_another_order_gives_another_store(tiny, tree, tmp_path):
    """The trials are read from the design, not from the table or the order of the ids."""
    change('masterordering', lambda order: order[:, ::-1])(tree)
    tree.responses_file('subj02').unlink()
    path = prepare_subject(tree, tmp_path / 'store', 'subj02', CLASSES, progress=False)
    assert difference(path, slow_store(tree.root, 'subj02')) == ''
    assert difference(path, slow_store(tiny.root, 'subj02')) != ''


def test_both_kinds_of_images_are_needed(tree, tmp_path):
    mat = scipy.io.loadmat(tree.design_file)
    tree.responses_file('subj02').unlink()
    for low, high, named in ((0, SHARED, 'show 75 shared and 0 other'), (SHARED, OWN, 'show 0 shared and 675 other')):
        order = np.resize(np.arange(low, high) + 1, mat['masterordering'].shape)
        change_design(tree, masterordering=order.astype(np.uint16))
        with pytest.raises(ValueError, match=f'nsd_expdesign.mat: the 1 session.s. of subj02 {named}'):
            prepare_subject(tree, tmp_path / 'store', 'subj02', CLASSES, progress=False)
    assert not (tmp_path / 'store').exists()
