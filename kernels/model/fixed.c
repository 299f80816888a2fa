/* SPDX-License-Identifier: Apache-2.0 */
/* See fixed.h. frexp, ldexp and rint are exact and so the same everywhere. */
#include "kernels/model/fixed.h"

#include <math.h>

#define LN2_HIGH  0x1.62e42fefa0000p-1 /* trailing zeros: times a small whole number is exact */
#define LN2_LOW   0x1.cf79abc9e3b3ap-40
#define SQRT2     0x1.6a09e667f3bcdp+0
#define ANGLE_MAX 0x1p25

/* pi / 2 in three parts, the first two of 33 bits (fdlibm, e_rem_pio2.c). */
#define HALF_PI_1 1.57079632673412561417e+00
#define HALF_PI_2 6.07710050630396597660e-11
#define HALF_PI_3 2.02226624879595063154e-21

double fixed_exp(double x)
{
    const double n = rint(x * 1.4426950408889634);
    const double r = (x - n * LN2_HIGH) - n * LN2_LOW;
    double sum = 1.0;
    for (int i = 16; i >= 1; i--)
        sum = sum * r / i + 1.0;
    return ldexp(sum, (int)n);
}

/* ln m = 2 atanh((m - 1) / (m + 1)) */
double fixed_log(double x)
{
    int power;
    double m = frexp(x, &power);
    if (m < SQRT2 / 2) {
        m *= 2;
        power--;
    }
    const double t = (m - 1) / (m + 1);
    double sum = 0.0;
    for (int i = 27; i >= 1; i -= 2)
        sum = sum * (t * t) + 1.0 / i;
    return power * LN2_HIGH + (2 * t * sum + power * LN2_LOW);
}

void fixed_sin_cos(double x, double *sine, double *cosine)
{
    *sine = *cosine = NAN;
    if (!(fabs(x) < ANGLE_MAX))
        return;
    const double n = rint(x * 0.63661977236758134308);
    const double r = ((x - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3;
    const double square = r * r;
    double s = 1.0;
    double c = 1.0;
    for (int i = 18; i >= 2; i -= 2) {
        s = 1.0 - s * square / (double)(i * (i + 1));
        c = 1.0 - c * square / (double)(i * (i - 1));
    }
    s *= r;
    const int quarter = (int)((long)n & 3);
    *sine = quarter & 1 ? c : s;
    *cosine = quarter & 1 ? s : c;
    if (quarter & 2)
        *sine = -*sine;
    if (quarter == 1 || quarter == 2)
        *cosine = -*cosine;
}
