/* SPDX-License-Identifier: Apache-2.0 */
/* status.c - words for status codes, from status.def. */
#include <string.h>
#include <weft/status.h>

const char *weft_status_text(int status)
{
    static _Thread_local char text[128];
    switch (status) {
#define STATUS_TEXT_(name, code, sentence)                                                         \
    case (code):                                                                                   \
        return sentence;
        WEFT_STATUSES(STATUS_TEXT_)
    case 0:
        return "Complete.";
    default:
        break;
    }
    if (status < 0 && status > -1000) {
        return strerror_r(-status, text, sizeof(text)); /* the GNU one: never NULL */
    }
    return "Unknown status.";
}

/* The table's names are upper case; machines get them in lower case, made once per name here. */
const char *weft_status_name(int status)
{
    static _Thread_local char name[32];
    const char *upper = NULL;
    switch (status) {
#define STATUS_NAME_(tag, code, sentence)                                                          \
    case (code):                                                                                   \
        upper = #tag;                                                                              \
        break;
        WEFT_STATUSES(STATUS_NAME_)
    case 0:
        return "ok";
    default:
        return status < 0 && status > -1000 ? "errno" : "unknown";
    }
    size_t i = 0;
    for (; upper[i] != '\0' && i + 1 < sizeof(name); i++) {
        char c = upper[i];
        name[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    name[i] = '\0';
    return name;
}
