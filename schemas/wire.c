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

uint32_t weft_tag_mask(const char *name)
{
#define TAG_MASK_(tag, bit, text)                                                                  \
    if (strcmp(name, #tag) == 0) {                                                                 \
        return UINT32_C(1) << (bit);                                                               \
    }
    WEFT_TAGS(TAG_MASK_)
    return 0;
}
