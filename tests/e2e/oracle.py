# SPDX-License-Identifier: Apache-2.0
"""An independent opinion on which node serves a request, from the rules as documented.

Written from the text of dataplane/route/choose.h, not from its code: filters are never relaxed, the
candidates are ranked by toroidal-Manhattan distance, and the nearest one whose predicted completion
is close to the best is chosen. Standard library only.
"""
import math
from dataclasses import dataclass

RING = 65536            # x: longitude over the whole ring
HALF_RING = 32767       # y: latitude over half of it
TIER_CELLS = 1638       # 1,000 km a tier
EARTH_RADIUS_KM = 6371.0088
SLACK_RATIO = 1.25      # predicted completion may be this much worse than the best ...
SHORT_RATIO = 1.5       # ... or this,
SHORT_S = 0.025         # if it is no more than that ...
SLACK_S = 0.010         # ... plus this
GREY = 0.3              # predictions this close to the limit may fall either way
RADIUS_GREY_KM = 2.0    # positions travel as cells of 0.6 km


@dataclass(frozen=True)
class Node:
    name: str
    id: int
    latitude: float
    longitude: float
    tier: int
    tags: frozenset
    first_token_s: float = 0.0  # predicted, for the request at hand


def cell_x(longitude):
    return round((longitude + 180.0) / 360.0 * RING) % RING


def cell_y(latitude):
    return round((latitude + 90.0) / 180.0 * HALF_RING)


def distance_cells(node, latitude, longitude, tier_min):
    along = abs(cell_x(node.longitude) - cell_x(longitude))
    around = min(along, RING - along)
    return (around + abs(cell_y(node.latitude) - cell_y(latitude))
            + TIER_CELLS * abs(node.tier - tier_min))


def distance_km(node, latitude, longitude):
    """Haversine; R. W. Sinnott, Sky and Telescope 68 (1984) 159."""
    lat1, lat2 = math.radians(node.latitude), math.radians(latitude)
    dlon = math.radians(node.longitude - longitude)
    h = (math.sin((lat1 - lat2) / 2) ** 2
         + math.cos(lat1) * math.cos(lat2) * math.sin(dlon / 2) ** 2)
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(h)))


def filtered(nodes, latitude, longitude, tiers, radius_km, tags=frozenset()):
    """Nodes that meet every filter. None in the place of the list: too close to a border to say."""
    kept = []
    for node in nodes:
        if not tags <= node.tags or not tiers[0] <= node.tier <= tiers[1]:
            continue
        if radius_km:
            km = distance_km(node, latitude, longitude)
            if abs(km - radius_km) < RADIUS_GREY_KM:
                return None
            if km > radius_km:
                continue
        kept.append(node)
    return kept


def acceptable(nodes, latitude, longitude, tiers=(0, 7), radius_km=0, tags=frozenset()):
    """Names of the nodes that may serve; one, or more where predictions lie at the limit.
    Empty: a refusal is the only right answer. None: a border case, do not ask."""
    kept = filtered(nodes, latitude, longitude, tiers, radius_km, tags)
    if kept is None:
        return None
    if not kept:
        return set()
    kept.sort(key=lambda n: (distance_cells(n, latitude, longitude, tiers[0]), n.id))
    best = min(n.first_token_s for n in kept)
    limit = max(best * SLACK_RATIO, min(best * SHORT_RATIO, best + SHORT_S)) + SLACK_S
    names = set()
    for node in kept:
        if node.first_token_s <= limit * (1 + GREY):
            names.add(node.name)
        if node.first_token_s <= limit * (1 - GREY):
            break
    return names
