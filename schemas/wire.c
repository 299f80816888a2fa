/* SPDX-License-Identifier: Apache-2.0 */
/* wire.c - names and small conversions of weft/wire.h, made from wire.def and tags.def. */
#include <math.h>
#include <string.h>
#include <weft/wire.h>

#include "schemas/tags.def"

#define NAME_CASE_(name, value, text)                                                              \
    case (value):                                                                                  \
        return #name;
#define TEXT_CASE_(name, value, text)                                                              \
    case (value):                                                                                  \
        return text;
#define CONSTRAINT_TEXT_CASE_(name, value, unit, text)                                             \
    case (value):                                                                                  \
        return text;
#define CONSTRAINT_UNIT_CASE_(name, value, unit, text)                                             \
    case (value):                                                                                  \
        return unit;

const char *weft_type_name(unsigned type)
{
    switch (type) {
        WEFT_TYPES(NAME_CASE_)
    default:
        return "?";
    }
}

const char *weft_constraint_text(unsigned constraint)
{
    switch (constraint) {
        WEFT_CONSTRAINTS(CONSTRAINT_TEXT_CASE_)
    default:
        return "?";
    }
}

const char *weft_constraint_unit(unsigned constraint)
{
    switch (constraint) {
        WEFT_CONSTRAINTS(CONSTRAINT_UNIT_CASE_)
    default:
        return "";
    }
}

const char *weft_finish_name(unsigned finish)
{
    switch (finish) {
        WEFT_FINISHES(TEXT_CASE_)
    default:
        return "?";
    }
}

const char *weft_role_name(unsigned role)
{
    switch (role) {
        WEFT_ROLES(TEXT_CASE_)
    default:
        return "?";
    }
}

uint32_t weft_model_id(const char *name)
{
    /* FNV-1a, 32 bits: http://www.isthe.com/chongo/tech/comp/fnv/ */
    uint32_t id = 2166136261u;
    for (const char *p = name; *p != '\0'; p++) {
        id = (id ^ (uint8_t)*p) * 16777619u;
    }
    return id != 0 ? id : 1;
}

/* Cells of the x ring in one turn, and of the y half ring between the poles. */
#define X_CELLS 65536.0
#define Y_CELLS 32767.0

uint16_t weft_cell_x(double longitude_deg)
{
    if (!isfinite(longitude_deg)) {
        return 0;
    }
    double turns = (longitude_deg + 180.0) / 360.0;
    turns -= floor(turns);
    return (uint16_t)((uint32_t)floor(turns * X_CELLS + 0.5) & 0xffffu);
}

uint16_t weft_cell_y(double latitude_deg)
{
    if (!(latitude_deg > -90.0)) {
        return 0;
    }
    if (latitude_deg >= 90.0) {
        return (uint16_t)Y_CELLS;
    }
    return (uint16_t)floor((latitude_deg + 90.0) / 180.0 * Y_CELLS + 0.5);
}

double weft_cell_longitude(uint16_t x)
{
    return (double)x / X_CELLS * 360.0 - 180.0;
}

double weft_cell_latitude(uint16_t y)
{
    return ((double)y / Y_CELLS * 180.0) - 90.0;
}

/* Words with `ones` of their lowest `bits` set: Pascal's triangle. */
#define WORD_BITS  12u
#define WORD_ONES  6u
#define WORD_SHIFT 12u /* where they begin among the tags */
#define LETTERS    26u
static const uint16_t words_with[WORD_BITS][WORD_ONES + 1] = {
    {1},
    {1, 1},
    {1, 2, 1},
    {1, 3, 3, 1},
    {1, 4, 6, 4, 1},
    {1, 5, 10, 10, 5, 1},
    {1, 6, 15, 20, 15, 6, 1},
    {1, 7, 21, 35, 35, 21, 7},
    {1, 8, 28, 56, 70, 56, 28},
    {1, 9, 36, 84, 126, 126, 84},
    {1, 10, 45, 120, 210, 252, 210},
    {1, 11, 55, 165, 330, 462, 462},
};

static bool is_capital(char letter)
{
    return letter >= 'A' && letter <= 'Z';
}

/* The combinatorial number system (Knuth, TAOCP 4A, 7.2.1.3): bit b, the k-th from below that is
 * set, counts for as many words as there are with k ones below it. */
uint32_t weft_jurisdiction_mask(const char *name)
{
    if (!is_capital(name[0]) || !is_capital(name[1]) || name[2] != '\0') {
        return 0;
    }
    uint32_t left = (uint32_t)(name[0] - 'A') * LETTERS + (uint32_t)(name[1] - 'A');
    uint32_t word = 0;
    for (uint32_t bit = WORD_BITS, ones = WORD_ONES; bit-- > 0 && ones > 0;) {
        if (left >= words_with[bit][ones]) {
            left -= words_with[bit][ones--];
            word |= UINT32_C(1) << bit;
        }
    }
    return word << WORD_SHIFT;
}

bool weft_jurisdiction_name(uint32_t tags, char name[3])
{
    uint32_t number = 0, ones = 0;
    for (uint32_t bit = 0; bit < WORD_BITS && ones <= WORD_ONES; bit++) {
        if ((tags >> (WORD_SHIFT + bit) & 1) != 0 && ++ones <= WORD_ONES) {
            number += words_with[bit][ones];
        }
    }
    bool is_one = ones == WORD_ONES && number < LETTERS * LETTERS;
    name[0] = (char)(is_one ? 'A' + number / LETTERS : 0);
    name[1] = (char)(is_one ? 'A' + number % LETTERS : 0);
    name[2] = '\0';
    return is_one;
}

uint32_t weft_tag_mask(const char *name)
{
#define TAG_MASK_(tag, bit, text)                                                                  \
    if (strcmp(name, #tag) == 0) {                                                                 \
        return UINT32_C(1) << (bit);                                                               \
    }
    WEFT_TAGS(TAG_MASK_)
    return 0;
}
