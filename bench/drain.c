/* Opens N connections, sends one HTTP request on each, then reads and counts events until EVENTS have come on every one.
 *
 * usage: drain HOST PORT N EVENTS MARKER PATH [HEADER...]
 * An event is counted by a byte that each has exactly once (MARKER, in decimal). Prints "ready" when every connection has had its
 * response header, and at the end one line: seconds from the first event to the last, events, bytes.
 * With BODY in the environment it is a POST. In C so that the reader is not what is measured. Gives up after 120 s.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc < 7) return fprintf(stderr, "usage: drain HOST PORT N EVENTS MARKER PATH [HEADER...]\n"), 2;
    const char *host = argv[1];
    int port = atoi(argv[2]), n = atoi(argv[3]), marker = atoi(argv[5]);
    long events = atol(argv[4]), wanted = events * n, got = 0, bytes = 0;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    char request[8192];
    const char *body = getenv("BODY") ? getenv("BODY") : "";
    int size = snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: %s:%d\r\n", *body ? "POST" : "GET", argv[6], host, port);
    if (*body) size += snprintf(request + size, sizeof request - size, "Content-Length: %zu\r\n", strlen(body));
    for (int i = 7; i < argc; i++) size += snprintf(request + size, sizeof request - size, "%s\r\n", argv[i]);
    size += snprintf(request + size, sizeof request - size, "\r\n%s", body);
    int poll = epoll_create1(0);
    char *begun = calloc(n, 1);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &to.sin_addr);
    static char buffer[1 << 20];
    int ready = 0;
    struct epoll_event happened[1024];
    for (int i = 0; i < n; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) return perror("connect"), 1;
        if (send(fd, request, size, 0) != size) return perror("send"), 1;
        struct epoll_event add = {.events = EPOLLIN, .data.u64 = ((unsigned long)i << 32) | (unsigned)fd};
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &add);
        /* Answers are awaited as we go: a listen queue is finite. */
        while (i - ready >= 64 || (i == n - 1 && ready < n)) {
            int k = epoll_wait(poll, happened, 1024, 20000);
            if (k <= 0) return fprintf(stderr, "no answer: %d of %d ready\n", ready, n), 1;
            for (int j = 0; j < k; j++) {
                int at = happened[j].data.u64 >> 32, from = (int)(happened[j].data.u64 & 0xffffffff);
                ssize_t r = recv(from, buffer, sizeof buffer, 0);
                if (r <= 0) return fprintf(stderr, "closed while connecting\n"), 1;
                if (!begun[at]) {
                    if (memcmp(buffer, "HTTP/1.1 200", 12)) return fprintf(stderr, "%.*s\n", (int)(r > 300 ? 300 : r), buffer), 1;
                    begun[at] = 1, ready++;
                }
            }
        }
    }
    puts("ready");
    fflush(stdout);
    double first = 0, last = 0, until = now() + 120;
    while (got < wanted && now() < until) {
        int k = epoll_wait(poll, happened, 1024, 1000);
        for (int j = 0; j < k; j++) {
            int from = (int)(happened[j].data.u64 & 0xffffffff);
            ssize_t r = recv(from, buffer, sizeof buffer, MSG_DONTWAIT);
            if (r == 0) return fprintf(stderr, "closed early: %ld of %ld events\n", got, wanted), 1;
            if (r < 0) continue;
            bytes += r;
            for (char *at = buffer, *end = buffer + r; (at = memchr(at, marker, end - at)); at++) got++;
        }
        if (k > 0 && got) {
            last = now();
            if (!first) first = last;
        }
    }
    printf("%.6f %ld %ld\n", last - first, got, bytes);
    return got < wanted;
}
