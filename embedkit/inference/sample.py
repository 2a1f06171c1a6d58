"""What precisions are compared by: a few dozen texts of many kinds, and what a model makes of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.classification import ClassifierFolder
from embedkit.inference.backend import AnyFolder, Backend, Output
from embedkit.inference.choice import CPU_TOKEN_BUDGET
from embedkit.model.sparse_config import TermPooling
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Float32

_LINES = """\
tea
Oslo
why is the sky blue
cheap flights to Lisbon in May
error: permission denied
best way to sharpen a kitchen knife
The kettle is boiling.
Nobody answered the door.
How long does paint take to dry?
x = [n * n for n in range(10)]
Two cats sleep on the warm roof.
She left her keys at the office again.
Version 2.4 fixes the crash on start-up.
Is it safe to eat apples with brown spots?
GDP rose by 0.3 % in the third quarter.
The museum is closed on Mondays and public holidays.
"Not now," he said, and went on reading his newspaper.
Ein Satz auf Deutsch, damit nicht alles englisch ist.
Les enfants jouent dans le jardin derrière la maison.
SELECT name, price FROM products WHERE price < 20 ORDER BY name;
Mix the flour with a pinch of salt before adding the cold butter.
The patient reports mild headaches, mostly in the early morning.
Aluminium melts at 660 °C, which is far below the melting point of iron.
After three days of rain the river rose above the old stone bridge.
Our train was late, so we missed the ferry and stayed another night in the harbour town.
Photosynthesis turns light, water and carbon dioxide into sugar and releases oxygen.
The committee rejected the proposal by nine votes to four, with two members absent.
You can return any item within thirty days, provided that it is unused and in its box.
A binary search halves the interval at every step, so a million entries need about twenty steps.
The violin maker tapped the spruce with a knuckle, listened, and put the board aside for another year.
Interest is paid at the end of each quarter; withdrawals before that date lose the interest of the quarter.
In the northern winter the sun stays below the horizon here for weeks, and people light candles at noon.
When a star of this mass has used up its hydrogen, the core contracts and the outer layers swell to many times their size.
My bicycle makes a clicking noise whenever I pedal uphill in the lowest gear, but it is silent on flat roads; what could be wrong?
The vaccine was given to 4,200 volunteers in two doses, four weeks apart, and protection was measured half a year later.
Goats were among the first animals that people kept: bones from villages ten thousand years old already show smaller horns.
To reset the router, hold the small button on its back for ten seconds, wait until both lights are green, and enter the password printed underneath.
The lease ends on the last day of June unless either party gives notice in writing at least three months before, in which case the deposit is returned within four weeks of the keys being handed over.
Bread made with rye keeps longer than bread made with wheat, because its starch binds more water; bakers in cold countries, where rye grows and flour was milled only twice a year, baked for several weeks at once.
He had walked the same road every evening for forty years, past the mill, the two chestnut trees and the house with the blue shutters, and only now, carrying a suitcase, did he notice that the road went slightly uphill.
Ice floats because water is densest at four degrees: as a lake cools in autumn the surface water sinks until the whole lake has that temperature, then the coldest water stays on top and freezes there, and the fish below live through the winter in liquid water.
The function reads the file line by line, skips whatever is empty or begins with a hash sign, splits the rest at the first colon, and returns a dictionary of names and values. If a name stands twice, the later value wins, and a warning with both line numbers is logged so that the mistake can be found.
Trade along the coast depended on the wind. From November to March ships sailed south with textiles, glass and copper; from April on they returned with ivory, timber and spices. A merchant who missed the turn of the season had to wait half a year, and whole quarters of the harbour towns grew up to house those who did.
Our results suggest that the effect is smaller than was reported earlier. In two of three experiments participants who had slept remembered slightly more words than those who had stayed awake, but the difference vanished once we took into account how tired they felt. We discuss what this means for studies with few participants, and publish all data and materials together with this article.
The old observatory stands on a hill outside the town. It was built when the nights there were still dark, with a dome of copper and a telescope that took eleven years to finish. Street lamps ended its work within a generation, and for a long time the building stored furniture. Since last spring school classes come again on clear evenings: they look at the moon, at the rings of Saturn and at a pale smudge that, as the guide never tires of saying, is another galaxy, whose light set out before there were people.
First wash the beans and leave them in plenty of water overnight. The next day pour the water away, cover the beans with fresh water, add a bay leaf, and let them simmer for an hour and a half without salt, which would keep the skins hard. Meanwhile cut two onions, three carrots and a stick of celery into small cubes and fry them slowly in olive oil until they are soft and a little brown at the edges. Add the vegetables, a tin of tomatoes and salt to the beans, cook everything for another half hour, and serve it with bread, olive oil and black pepper. The soup tastes better on the second day.
A court may set the decision aside only if the authority misread the law, left out facts that it should have weighed, or reached a result that no reasonable authority could have reached. It is not enough that the court itself would have decided otherwise. In this case the authority had the report of its own engineer before it, which advised against the permit because the slope above the houses had moved by several centimetres in each of the past four winters. The reasons given for the permit do not mention the report at all. Whether the advice had to be followed is for the authority to say; that it had to be considered follows from the statute, and so the matter must go back.
Rivers rarely run straight for long. Where the current meets a small obstacle it swings to one side, digs into the bank there and drops what it has taken on the inside of the next bend, where the water is slower. The bend grows, and with it the path of the river, until two loops almost touch; then one flood is enough to cut through the neck, and the abandoned loop becomes a lake in the shape of a horseshoe, which silts up, turns into a swamp and finally into a meadow with richer soil than the fields around it. From the air one sees dozens of such scars beside a living river, the younger ones still holding water, the older ones only a darker green, and farmers who have never seen them from above know them all the same, since that is where the tractor sinks in after rain.
"""
SAMPLE_TEXTS: tuple[str, ...] = tuple(_LINES.splitlines())


def sample_tokens(folder: AnyFolder) -> TokenBatch:
    """Return the sample as a model reads it: the texts, or for a cross-encoder pairs of neighbouring ones."""
    if isinstance(folder, ClassifierFolder):
        return folder.encode_pairs(SAMPLE_TEXTS[:-1], SAMPLE_TEXTS[1:])
    return folder.tokenizer.encode(SAMPLE_TEXTS)


def compared(backend: Backend, batch: TokenBatch, output: Output) -> Float32:
    """Compute one vector per sequence whose cosine to that of fp32 says how good a precision is.

    It is the pooled one, which is also what a cross-encoder's head reads: of few classes logits would tell too little. Of
    a masked language model it is the logits at the token in the middle, of a learned sparse one the weights of the terms. Where token
    vectors are asked for, it is these, one a token: what rounding does to them evens out in their mean.
    """
    if output == "hidden_states":
        return backend.hidden_states(batch)
    if output == "term_weights":
        return backend.term_weights(batch, TermPooling())
    if output == "mlm_logits":
        return backend.mlm_logits(batch, np.cumsum(batch.lengths) - batch.lengths + batch.lengths // 2)
    return backend.pooled(batch)


def sample_parts(batch: TokenBatch) -> list[NDArray[np.int64]]:
    """Cut the sample into parts, of which the first has a sixteenth of it and each later one as much as all before it.

    Returns the numbers of each part's sequences, some of all lengths: they stand from short to long.
    """
    there = np.flatnonzero(batch.lengths > 0)  # of some models a text has no tokens
    sixteenths = [there[first::16] for first in range(16)]
    borders = (0, 1, 2, 4, 8, 16)
    return [np.concatenate(sixteenths[start:stop]) for start, stop in pairwise(borders)]


def sample_batches(batch: TokenBatch, *, token_budget: int = CPU_TOKEN_BUDGET) -> list[TokenBatch]:
    """Cut a batch into batches of about so many tokens, the longest sequences first."""
    order = np.argsort(-batch.lengths, kind="stable")
    order = order[batch.lengths[order] > 0]  # of some models a text has no tokens
    numbers = np.cumsum(batch.lengths[order]) // (token_budget + 1)
    return [batch.take(order[numbers == number]) for number in np.unique(numbers)]
