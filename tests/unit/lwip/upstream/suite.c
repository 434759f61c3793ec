/* suite.c - one of lwIP's test files, from the fetched sources (SUITE is its path). */
#include SUITE
