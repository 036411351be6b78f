"""Model indices of which any byte was changed."""

import pytest
import yaml
from guard import run_cases
from mutations import TEXT, counts, mutate, rng_of

from mmnfn.apis.model_index import find_model

CASES = counts(index=250)
STUDY = b"""name: Table 1
work_dir: work
seeds: [0, 1]
x-rows: &rows
  random: {random: config.json}
  nfn: {config: config.json, options: {a.b: '{seed}', c: [1, 2]}}
backbones:
  swin:
    pretrain:
      <<: *rows
      imagenet: {checkpoint: swin.pth}
    transfer:
      detect: {config: config.json}
      encode: {config: config.json, train: false}
slurm: {timeout_min: 60}
"""
INDEX = b"""Collections:
- Name: NFN
Models:
- Name: swin
  In Collection: NFN
  Config: configs/swin.py
  Weights: swin.pth
- {Name: other, Config: configs/other.py, Weights: null}
"""


@pytest.fixture()
def folder(tmp_path, monkeypatch):
    """What the files name."""
    (tmp_path / 'config.json').write_text('{"a": 1}')
    (tmp_path / 'swin.pth').touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def index(path):
    return find_model('swin', path)


def right_index(found, path):
    """Config and weights as YAML's own reader finds them."""
    entry = [entry for entry in yaml.safe_load(path.read_text())['Models'] if entry['Name'] == 'swin'][-1]
    return found == (str(path.parent / entry['Config']), str(path.parent / entry['Weights']))


READERS = {'index': (index, right_index, INDEX)}


@pytest.mark.parametrize('kind', CASES)
def test_any_bytes_changed(folder, kind):
    read, right, original = READERS[kind]

    def make(seed):
        return mutate(original, rng_of(seed, kind), STUDY, TEXT)

    found = run_cases(CASES[kind], folder / 'a.yml', read, right, make, original)
    assert min(found['refused'], found['right']) > len(CASES[kind]) // 50, found


def doubled(first, line, levels=40):
    """Entries of which each names the one before twice."""
    return ''.join([first, *(line.format(k, k - 1) for k in range(1, levels))])


BAD = {
    'lists of lists': doubled('a0: &a0 [x]\n', 'a{0}: &a{0} [*a{1}, *a{1}]\n') + 'seeds: *a39\nname: *a39\n',
    'merges of merges': doubled('a0: &a0 {x: 1}\n', 'a{0}: &a{0} {{<<: [*a{1}, *a{1}]}}\n'),
    'a list of itself': 'seeds: &a [*a]\nModels: *a\n',
    'a key of itself': '&a ? *a : 1\n',
    'many levels': '[' * 50_000,
    'many levels of lines': '- ' * 5000,
    'many levels of dicts': '{a: ' * 5000,
    'a call': 'name: !!python/object/apply:os.system [true]\n',
    'a module': 'name: !!python/module:os\n',
    'a name': 'name: !!python/name:os.system\n',
    'a date that is none': 'name: 2020-13-45\n',
    'a number of many digits': 'seeds: [' + '9' * 5000 + ']\n',
    'no number': 'seeds: [0b_]\n',
    'a key that is a list': '? [a]\n: 1\n',
    'two documents': 'a: 1\n---\nb: 2\n',
    'an alias of nothing': 'a: *b\n',
    'an import of itself': 'Import: [a.yml]\n',
    'an import that is no path': 'Import: [[a.yml]]\n',
    'models that are none': 'Models: [1, a, null]\n',
    'models with other names': 'Models: [{Name: [swin], Config: a}]\n',
    'weights that are none': 'Models: [{Name: swin, Config: a, Weights: [1]}]\n',
    'a config that is none': 'Models: [{Name: swin, Config: 5, Weights: swin.pth}]\n',
    'a character that is none': 'name: "\ud800"\n',
    'zeros': '\0' * 100,
    'nothing': '',
}


@pytest.mark.parametrize('kind', CASES)
def test_what_is_made_to_hurt_is_refused(folder, kind):
    bad = {name: text.encode('utf-8', 'surrogatepass') for name, text in BAD.items()}
    bad['another character set'] = 'name: \u00e9'.encode('latin1')
    found = run_cases(bad, folder / 'a.yml', READERS[kind][0], lambda *_: False)
    assert found['refused'] == len(bad)
