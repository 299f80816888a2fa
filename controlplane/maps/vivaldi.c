/* SPDX-License-Identifier: Apache-2.0 */
/* vivaldi.c - see vivaldi.h. */
#include "controlplane/maps/vivaldi.h"

#include <math.h>
#include <string.h>

#include "schemas/base/cursor.h"

#define NEAR_S      1e-6 /* closer than this two nodes stand at one place */
#define US_PER_S    1e6
#define ERROR_PARTS 1000.0

struct vivaldi_coord vivaldi_origin(void)
{
    return (struct vivaldi_coord){.height = VIVALDI_HEIGHT_MIN_S, .error = VIVALDI_ERROR_MAX};
}

void vivaldi_init(struct vivaldi *v, uint64_t seed)
{
    memset(v, 0, sizeof(*v));
    v->at = vivaldi_origin();
    v->rng.state = seed;
}

/* False for NaN as well. */
static bool within(double value, double low, double high)
{
    return value >= low && value <= high;
}

bool vivaldi_valid(const struct vivaldi_coord *coord)
{
    for (int i = 0; i < VIVALDI_DIMENSIONS; i++) {
        if (!within(coord->place[i], -VIVALDI_LIMIT_S, VIVALDI_LIMIT_S)) {
            return false;
        }
    }
    return within(coord->height, VIVALDI_HEIGHT_MIN_S, VIVALDI_LIMIT_S) &&
           within(coord->adjustment, -VIVALDI_LIMIT_S, VIVALDI_LIMIT_S) &&
           within(coord->error, 0.0, VIVALDI_ERROR_MAX);
}

static double norm(const double vector[VIVALDI_DIMENSIONS])
{
    double sum = 0.0;
    for (int i = 0; i < VIVALDI_DIMENSIONS; i++) {
        sum += vector[i] * vector[i];
    }
    return sqrt(sum);
}

/* Without the adjustments, which are fitted to what this leaves over. */
static double raw_rtt(const struct vivaldi_coord *a, const struct vivaldi_coord *b)
{
    double apart[VIVALDI_DIMENSIONS];
    for (int i = 0; i < VIVALDI_DIMENSIONS; i++) {
        apart[i] = a->place[i] - b->place[i];
    }
    return norm(apart) + a->height + b->height;
}

double vivaldi_rtt(const struct vivaldi_coord *a, const struct vivaldi_coord *b)
{
    double raw = raw_rtt(a, b);
    double adjusted = raw + a->adjustment + b->adjustment;
    /* An adjustment larger than the distance says nothing about this pair. */
    return adjusted > 0.0 ? adjusted : raw;
}

/* Into `direction`, of length 1, from b to a. Returns their distance; where there is none the
 * direction is drawn, as nodes that start at one place must part somehow. */
static double direction_from(struct rng *rng, const double a[VIVALDI_DIMENSIONS],
                             const double b[VIVALDI_DIMENSIONS],
                             double direction[VIVALDI_DIMENSIONS])
{
    for (int i = 0; i < VIVALDI_DIMENSIONS; i++) {
        direction[i] = a[i] - b[i];
    }
    double distance = norm(direction);
    double length = distance;
    if (distance <= NEAR_S) {
        distance = 0.0;
        do {
            for (int i = 0; i < VIVALDI_DIMENSIONS; i++) {
                direction[i] = rng_unit(rng) - 0.5;
            }
            length = norm(direction);
        } while (length <= NEAR_S);
    }
    for (int i = 0; i < VIVALDI_DIMENSIONS; i++) {
        direction[i] /= length;
    }
    return distance;
}

static double clamp(double value, double low, double high)
{
    return value < low ? low : value > high ? high : value;
}

/* Moves the node by `force` seconds away from `other`. */
static void push(struct vivaldi *v, const struct vivaldi_coord *other, double force)
{
    double direction[VIVALDI_DIMENSIONS];
    double distance = direction_from(&v->rng, v->at.place, other->place, direction);
    for (int i = 0; i < VIVALDI_DIMENSIONS; i++) {
        v->at.place[i] =
            clamp(v->at.place[i] + direction[i] * force, -VIVALDI_LIMIT_S, VIVALDI_LIMIT_S);
    }
    if (distance > 0.0) {
        double grown = v->at.height + (v->at.height + other->height) * force / distance;
        v->at.height = clamp(grown, VIVALDI_HEIGHT_MIN_S, VIVALDI_LIMIT_S);
    }
}

static void update_place(struct vivaldi *v, const struct vivaldi_coord *peer, double rtt)
{
    double predicted = raw_rtt(&v->at, peer);
    double wrong = fabs(predicted - rtt) / rtt;
    double both = v->at.error + peer->error;
    /* The surer of the two moves less. */
    double weight = both > NEAR_S ? v->at.error / both : 0.5;
    double share = VIVALDI_CE * weight;
    v->at.error = clamp(wrong * share + v->at.error * (1.0 - share), 0.0, VIVALDI_ERROR_MAX);
    push(v, peer,
         clamp(VIVALDI_CC * weight * (rtt - predicted), -VIVALDI_STEP_MAX_S, VIVALDI_STEP_MAX_S));
}

static void update_adjustment(struct vivaldi *v, const struct vivaldi_coord *peer, double rtt)
{
    v->residuals[v->residual_next] = rtt - raw_rtt(&v->at, peer);
    v->residual_next = (v->residual_next + 1) % VIVALDI_WINDOW;
    double sum = 0.0;
    for (int i = 0; i < VIVALDI_WINDOW; i++) {
        sum += v->residuals[i];
    }
    v->at.adjustment = clamp(sum / (2.0 * VIVALDI_WINDOW), -VIVALDI_LIMIT_S, VIVALDI_LIMIT_S);
}

bool vivaldi_update(struct vivaldi *v, const struct vivaldi_coord *peer, double rtt)
{
    if (!(rtt > 0.0 && rtt <= VIVALDI_LIMIT_S) || !vivaldi_valid(peer)) {
        return false;
    }
    rtt = rtt < NEAR_S ? NEAR_S : rtt;
    update_place(v, peer, rtt);
    update_adjustment(v, peer, rtt);
    /* Keeps the whole swarm from drifting away together. */
    struct vivaldi_coord origin = vivaldi_origin();
    double out = raw_rtt(&v->at, &origin) / VIVALDI_GRAVITY_RHO;
    push(v, &origin, -out * out);
    return true;
}

/* ---- wire ---- */

void vivaldi_write(const struct vivaldi_coord *coord, uint8_t out[VIVALDI_WIRE_BYTES])
{
    struct cursor c;
    cursor_init(&c, out, VIVALDI_WIRE_BYTES);
    for (int i = 0; i < VIVALDI_DIMENSIONS; i++) {
        cursor_write_u32(&c, (uint32_t)(int32_t)lrint(coord->place[i] * US_PER_S));
    }
    cursor_write_u32(&c, (uint32_t)(int32_t)lrint(coord->height * US_PER_S));
    cursor_write_u32(&c, (uint32_t)(int32_t)lrint(coord->adjustment * US_PER_S));
    cursor_write_u16(&c, (uint16_t)lrint(coord->error * ERROR_PARTS));
    cursor_write_u16(&c, 0);
}

bool vivaldi_read(struct vivaldi_coord *coord, const void *data, size_t size)
{
    struct cursor c;
    cursor_init_const(&c, data, size);
    for (int i = 0; i < VIVALDI_DIMENSIONS; i++) {
        coord->place[i] = (int32_t)cursor_read_u32(&c) / US_PER_S;
    }
    coord->height = (int32_t)cursor_read_u32(&c) / US_PER_S;
    coord->adjustment = (int32_t)cursor_read_u32(&c) / US_PER_S;
    coord->error = cursor_read_u16(&c) / ERROR_PARTS;
    uint16_t zero = cursor_read_u16(&c);
    return !c.failed && cursor_left(&c) == 0 && zero == 0 && vivaldi_valid(coord);
}
