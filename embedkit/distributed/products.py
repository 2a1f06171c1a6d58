"""Which kind of shard a plan is of."""

from __future__ import annotations

from embedkit.distributed.index_shards import IndexShards
from embedkit.distributed.mined_shards import MinedShards
from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.product import Product
from embedkit.distributed.vector_shards import VectorShards


def product_of(plan: ShardPlan) -> Product:
    if plan.mining:
        return MinedShards()
    return VectorShards() if plan.encoding else IndexShards()
