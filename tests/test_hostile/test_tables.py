"""Tables of text of which any byte was changed: the stimulus table, the table of trials, and those of labels.

A changed digit is another number, and nothing in the file says so; what must not happen is that it changes another row.
"""

import re

import numpy as np
import pytest
from guard import run_cases
from mutations import TEXT, counts, mutate, rng_of

from mmnfn.nsd import NSDLayout
from mmnfn.nsd.design import check_responses
from mmnfn.nsd.stim_info import read_stim_info

CASES = counts(stim_info=400, responses=350, labels=300)
COLUMNS = ('nsdId', 'cocoId', 'cocoSplit', 'shared1000', 'subject1')
TRIALS = np.asarray([46002, 61882, 828, 67573, 16020, 40422, 51517, 62325])


def stim_info():
    """The table in small, with a column that is quoted."""
    rows = [
        f'{k},{532481 + 7 * k},{"train" if k % 3 else "val"}2017,"(0.1, 0.{k}, 0.0, 0.25)",{k / 7},{k},False,False,'
        f'{k % 4 == 0},{k % 2}'
        for k in range(9)
    ]
    return '\n'.join([',cocoId,cocoSplit,cropBox,loss,nsdId,flagged,BOLD5000,shared1000,subject1', *rows, '']).encode()


def responses():
    """The table in small."""
    rows = [f'1\t1\t1\t{k + 1}\t{image + 1}\t{k}\t0.5\tNaN' for k, image in enumerate(TRIALS)]
    return '\n'.join(['SUBJECT\tSESSION\tRUN\tTRIAL\t73KID\t10KID\tTIME\tRT', *rows, '']).encode()


LABELS = b'0 Unknown\n1 early\t\n2 midventral\n3 midlateral\n4 midparietal\n5 ventral  \n6 lateral\n7 parietal\n'


def rows_of(path, separator):
    """Fields of each line, by a reader that knows nothing but separators and quotes around fields."""
    text = path.read_bytes().decode()
    pattern = re.compile(rf'(?:^|{separator})("(?:[^"]|"")*"|[^{separator}]*)')
    lines = [line for line in re.split('\r\n|\r|\n', text) if line.strip(' ')]
    return [[field.strip('"') for field in pattern.findall(line)] for line in lines]


def read_table(path):
    return read_stim_info(path, COLUMNS)


def right_table(table, path):
    """Every cell is what stands in its own line."""
    names, *rows = rows_of(path, ',')
    if len(rows) != len(table):
        return False
    for column in COLUMNS:
        cells = [row[names.index(column)] for row in rows]
        if column == 'cocoSplit':
            same = cells == table[column].tolist()
        elif column in ('shared1000', 'subject1'):
            truth = {'true': 1, 'false': 0, 'TRUE': 1, 'FALSE': 0, 'True': 1, 'False': 0}
            same = [float(truth.get(cell, cell)) for cell in cells] == table[column].astype(float).tolist()
        else:
            same = [int(cell) for cell in cells] == table[column].tolist()
        if not same:
            return False
    return True


def read_trials(path):
    check_responses(path, TRIALS)
    return TRIALS


def right_trials(found, path):
    """The table says the same as the design."""
    names, *rows = rows_of(path, '\t')
    said = [float(row[names.index('73KID')]) for row in rows]
    return said[: len(TRIALS)] == (TRIALS + 1).tolist()


def read_labels(path):
    return NSDLayout(path.parents[4]).labels('subj01', 'streams')


def right_labels(found, path):
    """Index and name of each line that is not empty."""
    lines = [line.split(None, 1) for line in path.read_bytes().decode('utf-8', 'replace').splitlines() if line.strip()]
    wanted = {int(index): name.strip() for index, name in lines}
    return found == {index: name for index, name in wanted.items() if index}


READERS = {
    'stim_info': (read_table, right_table, stim_info()),
    'responses': (read_trials, right_trials, responses()),
    'labels': (read_labels, right_labels, LABELS),
}


@pytest.fixture()
def path(tmp_path):
    """A place at which a release tree has its label table; the others can be anywhere."""
    folder = tmp_path / 'nsddata/freesurfer/subj01/label'
    folder.mkdir(parents=True)
    return folder / 'streams.mgz.ctab'


@pytest.mark.parametrize('kind', CASES)
def test_any_bytes_changed(path, kind):
    read, right, original = READERS[kind]
    other = READERS['labels' if kind == 'stim_info' else 'stim_info'][2]

    def make(seed):
        return mutate(original, rng_of(seed, kind), other, TEXT)

    found = run_cases(CASES[kind], path, read, right, make, original)
    assert min(found['refused'], found['right']) > len(CASES[kind]) // 50, found


def test_what_is_made_to_mislead_is_refused(path):
    table = stim_info()
    lines = table.split(b'\n')
    bad = {
        'a mark that swallows rows': table.replace(b',val2017', b',"val2017', 1).replace(b',val2017', b',val2017"', 1),
        'a field more in every row': b'\n'.join([lines[0], *(line + b',1' for line in lines[1:-1])]),
        'a flag that is a text': table.replace(b',False,1\n', b',False,l\n', 1),
        'a flag of two': table.replace(b',False,1\n', b',False,2\n', 1),
        'a number of 400 digits': table.replace(b'532481', b'9' * 400),
        'a number beyond 64 bits': table.replace(b'532481', b'99999999999999999999'),
        'infinity': table.replace(b'532481', b'inf'),
        'nothing': table.replace(b'532481', b''),
        'UTF-16': table.decode().encode('utf-16'),
        'another character set': table.replace(b'loss', b'l\xf6ss'),
        'zeros': bytes(1000),
        'an archive': b'PK\3\4' + bytes(100),
        'one line without end': b',' * 3_000_000,
    }
    found = run_cases(bad, path, read_table, right_table)
    assert found['refused'] == len(bad), found
    trials = responses()
    bad = {
        'a mark that swallows rows': trials.replace(b'\t0.5\t', b'\t"0.5\t', 2),
        'one trial less': trials[: trials.rindex(b'1\t1\t1')],
        'another image': trials.replace(b'46003', b'46002'),
        'a fraction': trials.replace(b'46003', b'46003.5'),
        'a huge number': trials.replace(b'46003', b'1e300'),
        'beyond 64 bits': trials.replace(b'46003', b'18446744073709597619'),
        'complex': trials.replace(b'46003', b'46003j'),
    }
    assert run_cases(bad, path, read_trials, right_trials)['refused'] == len(bad)
