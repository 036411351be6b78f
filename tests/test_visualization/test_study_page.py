"""The report's figures and page: what is in them, and that nothing from outside is."""

import pickle
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from finished_study import ROWS, finished_study, predictions

from mmnfn.evaluation.retrieval import Ranks, ranks_of_predictions, recall_curve
from mmnfn.experiments.results import StudyResults
from mmnfn.visualization.study_figures import COLOURS, looks, study_panels
from mmnfn.visualization.study_page import Part, study_page
from mmnfn.visualization.study_tables import Table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    return finished_study(tmp_path_factory.mktemp('study'))


def test_curves_take_the_later_word(study):
    assert StudyResults(study).curve('micro', 'nfn', 'loss_con') == {s: {10: 5.0, 20: 4.0, 30: 4.0} for s in (0, 1)}


def test_ranks_are_within_a_subject():
    samples = predictions(np.random.default_rng(0), 2.0)
    expected = []
    for sample in samples:
        own = [s for s in samples if s['subject'] == sample['subject']]

        def cosine(other, image=sample['image_embedding']):
            brain = other['fmri_embedding']
            return image @ brain / np.linalg.norm(image) / np.linalg.norm(brain)

        expected.append(1 + sum(cosine(other) > cosine(sample) for other in own))
    ranks = ranks_of_predictions(samples)
    assert ranks.rank.tolist() == expected and max(expected) > 1 and set(ranks.candidates) == {10}
    texts = [{key.replace('fmri', 'text'): value for key, value in sample.items()} for sample in samples]
    assert ranks_of_predictions(texts).rank.tolist() == expected


def test_recall_by_hand():
    ranks = Ranks(np.array([1, 3, 3, 4]), np.array([5, 5, 5, 4]), np.arange(4))
    assert recall_curve(ranks).tolist() == [0.25, 0.25, 0.75, 1.0, 1.0]


def test_panels(study):
    panels = study_panels(StudyResults(study), 'micro', ROWS)
    kinds = [panel.title.partition(': ')[2] for panel in panels]
    assert kinds == ['contrastive loss', 'retrieval in training', 'retrieval of held-out images', 'encoding by ROI']
    seen = set()
    for panel in panels:
        svg = ElementTree.fromstring(panel.svg)
        ids = [element.get('id') for element in svg.iter() if element.get('id')]
        assert len(set(ids)) == len(ids) and not seen & set(ids), 'ids are unique in a page'
        seen |= set(ids)
        targets = set(re.findall(r'(?:href="#|url\(#)([^")]+)', panel.svg))
        assert targets and targets <= set(ids)
        texts = [element.text.strip() for element in svg.iter() if element.tag.endswith('text')]
        assert set(ROWS) <= set(texts) and svg.get('width') is None
        assert 'currentColor' in panel.svg and '#010203' not in panel.svg and '#000000' not in panel.svg
        assert all(colour in panel.svg for colour in COLOURS[:2])
    assert {'streams', 'noise ceiling'} <= set(texts)
    assert study_panels(StudyResults(study), 'other', ROWS) == []
    again = study_panels(StudyResults(study), 'micro', ROWS, 'study2-')
    assert not seen & set(re.findall(r'\bid="([^"]+)"', ''.join(panel.svg for panel in again)))


def test_rows_look_different():
    rows = [f'row{n}' for n in range(25)]
    assert len(set(looks(rows).values())) == 25


@pytest.mark.parametrize(
    'name, content',
    [('embeddings.pkl', b''), ('embeddings.pkl', pickle.dumps([])), ('metrics.json', b'[1'), ('metrics.json', b'[]')],
)
def test_damaged_files_are_named(study, name, content):
    path = study.jobs[0].folder / name
    before = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'seed0/pretrain/{name} is damaged'):
        StudyResults(study)
    path.write_bytes(before)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.cells, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.links += [attributes[name] for name in ('src', 'href', 'xlink:href') if name in attributes]
        self.ids += [attributes['id']] if 'id' in attributes else []
        if tag == 'td':
            self.cells.append([attributes.get('class'), ''])

    def handle_data(self, data):
        if self.cells and self.lasttag == 'td':
            self.cells[-1][1] += data.strip()


CLEAR = [(False, False, True), (False, False, False)]


def test_page():
    rows = [('micro', 'nfn', '31.0 ± 4.4', '57.4'), ('micro', '<b>', 'missing', '')]
    differences = [('micro', 'a − b', '+6.0 [+1.0, +11.0]'), ('micro', 'a − c', '-0.5 [-1.5, +0.5]')]
    head = ('backbone', 'weights', 'PCC', 'PCC, paper')
    table = Table('T', 'Mean over 3 seeds.', head, rows, (3,), ('backbone', 'difference', 'PCC'), differences, CLEAR)
    text = study_page('A & B', [Part('one', '3 of 4 jobs are done.', [table], [])])
    page = Page(text)
    assert page.cells == [
        [None, 'micro'],
        [None, 'nfn'],
        [None, '31.0 ± 4.4'],
        ['paper', '57.4'],
        [None, 'micro'],
        [None, '<b>'],
        ['missing', 'missing'],
        ['paper', ''],
        [None, 'micro'],
        [None, 'a − b'],
        ['clear', '+6.0 [+1.0, +11.0]'],
        [None, 'micro'],
        [None, 'a − c'],
        [None, '-0.5 [-1.5, +0.5]'],
    ]
    assert '<title>A &amp; B</title>' in text and '3 of 4 jobs are done.' in text
    assert 'prefers-color-scheme: dark' in text and 'name="viewport"' in text


def test_the_command_writes_a_page_of_its_own(study, tmp_path, monkeypatch):
    monkeypatch.chdir(study.path.parent)
    command = [sys.executable, ROOT / 'tools/experiments/report.py', study.path, '--out', tmp_path / 'report']
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / 'report').iterdir()}
    assert names == {'report.html', 'report.md', 'results.json', 'study_table1.csv'}
    text = (tmp_path / 'report/report.html').read_text()
    page = Page(text)
    assert page.links and all(link.startswith('#') for link in page.links), 'nothing comes from elsewhere'
    assert not {'script', 'link', 'img', 'iframe'} & set(page.tags) and page.tags.count('svg') == 4
    assert len(set(page.ids)) == len(page.ids)
    assert '@import' not in text and 'url(http' not in text
    assert ['missing', 'missing'] not in page.cells and [None, '32.0 ± 1.4'] in page.cells
    assert '<h1>Toy &amp; &lt;co&gt;</h1>' in text
