// A shop as a JVM runs it: the JDK's own HTTP server, a fixed pool of threads, and handlers that do what handlers do
// (build JSON, match, sort, format, look things up by reflection, fill a cache). Cold, a first request takes tens to
// hundreds of milliseconds; warm ones take about one. No dependencies: `javac Shop.java && java Shop PORT THREADS`.
//
// GET /trace gives for each request, in the order in which they ended, how long it took inside the server and the
// processor's time that its thread took for it, in microseconds: the benchmark reads from it when the latency was flat,
// without the program that it measures.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.time.LocalDate;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Shop {
    static final int PRODUCTS = 2000;
    static final List<Product> CATALOGUE = new ArrayList<>();
    static final Map<String, String> CACHE = new ConcurrentHashMap<>();
    static final int[] TRACE = new int[1_000_000];
    static final int[] WORK = new int[TRACE.length];
    static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();
    static final AtomicInteger TRACED = new AtomicInteger();

    public static class Product {
        final int id;
        final String name;
        final String category;
        final BigDecimal price;
        final LocalDate since;
        final String description;

        Product(int id, Random random) {
            String[] kinds = {"shoe", "hat", "coat", "belt", "sock", "scarf", "glove", "shirt"};
            String[] looks = {"red", "blue", "plain", "striped", "woollen", "cotton", "light", "warm", "dark", "old"};
            this.id = id;
            this.category = kinds[random.nextInt(kinds.length)];
            this.name = looks[random.nextInt(looks.length)] + " " + category + " no. " + id;
            this.price = BigDecimal.valueOf(100 + random.nextInt(20_000), 2);
            this.since = LocalDate.of(2015, 1, 1).plusDays(random.nextInt(4000));
            StringBuilder text = new StringBuilder();
            for (int word = 0; word < 12; word++) {
                text.append(looks[random.nextInt(looks.length)]).append(word % 5 == 4 ? ". " : " ");
            }
            this.description = text.append("Ask for part ").append(1000 + random.nextInt(9000)).toString();
        }

        public int getId() { return id; }
        public String getName() { return name; }
        public String getCategory() { return category; }
        public BigDecimal getPrice() { return price; }
        public LocalDate getSince() { return since; }
        public String getDescription() { return description; }
    }

    interface Page {
        String show(HttpExchange exchange, Map<String, String> query) throws Exception;
    }

    public static void main(String[] args) throws IOException {
        Random random = new Random(42);
        for (int id = 0; id < PRODUCTS; id++) {
            CATALOGUE.add(new Product(id, random));
        }
        int port = Integer.parseInt(args[0]);
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 1024);
        server.setExecutor(Executors.newFixedThreadPool(Integer.parseInt(args[1])));
        serve(server, "/", (exchange, query) -> home());
        serve(server, "/products", (exchange, query) -> products(query));
        serve(server, "/product", (exchange, query) -> product(query));
        serve(server, "/search", (exchange, query) -> search(query));
        serve(server, "/cart", (exchange, query) -> cart(exchange));
        serve(server, "/report", (exchange, query) -> report());
        serve(server, "/login", (exchange, query) -> login(query));
        serve(server, "/export", (exchange, query) -> export(query));
        server.createContext("/trace", exchange -> answer(exchange, trace()));
        server.start();
        System.out.println("listening on " + server.getAddress().getPort());
    }

    static void serve(HttpServer server, String path, Page page) {
        server.createContext(path, exchange -> {
            long begun = System.nanoTime();
            long worked = THREADS.getCurrentThreadCpuTime();
            try {
                answer(exchange, page.show(exchange, query(exchange)));
            } catch (Exception error) {
                exchange.sendResponseHeaders(500, -1);
                exchange.close();
            }
            int at = TRACED.getAndIncrement();
            if (at < TRACE.length) {
                TRACE[at] = (int) ((System.nanoTime() - begun) / 1000);
                WORK[at] = (int) ((THREADS.getCurrentThreadCpuTime() - worked) / 1000);
            }
        });
    }

    static void answer(HttpExchange exchange, String text) throws IOException {
        byte[] body = text.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "text/plain; charset=utf-8");
        exchange.sendResponseHeaders(200, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    static String trace() {
        StringBuilder text = new StringBuilder();
        for (int at = 0; at < Math.min(TRACED.get(), TRACE.length); at++) {
            text.append(TRACE[at]).append(' ').append(WORK[at]).append('\n');
        }
        return text.toString();
    }

    static Map<String, String> query(HttpExchange exchange) {
        Map<String, String> query = new LinkedHashMap<>();
        String text = exchange.getRequestURI().getQuery();
        for (String pair : (text == null ? "" : text).split("&")) {
            String[] parts = pair.split("=", 2);
            query.put(parts[0], parts.length > 1 ? parts[1] : "");
        }
        return query;
    }

    /** A list for people: formatted lines, the newest first. */
    static String home() {
        StringBuilder page = new StringBuilder("<html><body><ul>\n");
        CATALOGUE.stream().sorted(Comparator.comparing(Product::getSince).reversed()).limit(60).forEach(product ->
            page.append(String.format(Locale.ROOT, "<li>%-30s %8.2f since %s</li>%n", product.name,
                product.price.doubleValue(), DateTimeFormatter.ISO_DATE.format(product.since))));
        return page.append("</ul></body></html>\n").toString();
    }

    /** JSON by reflection, as serializers do it. */
    static String products(Map<String, String> query) throws ReflectiveOperationException {
        int limit = Integer.parseInt(query.getOrDefault("limit", "50"));
        List<Product> sorted = new ArrayList<>(CATALOGUE);
        Collections.sort(sorted, Comparator.comparing(Product::getPrice).thenComparing(Product::getName));
        StringBuilder json = new StringBuilder("[");
        for (Product product : sorted.subList(0, Math.min(limit, sorted.size()))) {
            json.append(json.length() > 1 ? ",{" : "{");
            for (Method method : Product.class.getMethods()) {
                if (method.getName().startsWith("get") && method.getDeclaringClass() == Product.class) {
                    json.append('"').append(method.getName().substring(3).toLowerCase(Locale.ROOT)).append("\":");
                    quote(json, String.valueOf(method.invoke(product)));
                    json.append(',');
                }
            }
            json.append("\"offer\":false}");
        }
        return json.append("]").toString();
    }

    static void quote(StringBuilder json, String text) {
        json.append('"');
        for (int at = 0; at < text.length(); at++) {
            char c = text.charAt(at);
            if (c == '"' || c == '\\') {
                json.append('\\');
            }
            json.append(c);
        }
        json.append('"');
    }

    /** What is dear to work out and is therefore kept. */
    static String product(Map<String, String> query) {
        String id = query.getOrDefault("id", "0");
        return CACHE.computeIfAbsent(id, key -> {
            Product product = CATALOGUE.get(Integer.parseInt(key) % PRODUCTS);
            Map<Integer, List<String>> near = new TreeMap<>();
            for (Product other : CATALOGUE) {
                near.computeIfAbsent(distance(start(product), start(other)), d -> new ArrayList<>())
                    .add(other.name);
            }
            return product.name + near.values().stream().flatMap(List::stream).limit(10).collect(Collectors.toList());
        });
    }

    static String start(Product product) {
        return product.description.substring(0, 40);
    }

    /** The edit distance. */
    static int distance(String one, String other) {
        int[] before = new int[other.length() + 1];
        int[] now = new int[other.length() + 1];
        for (int at = 0; at <= other.length(); at++) {
            before[at] = at;
        }
        for (int row = 1; row <= one.length(); row++) {
            now[0] = row;
            for (int at = 1; at <= other.length(); at++) {
                int change = before[at - 1] + (one.charAt(row - 1) == other.charAt(at - 1) ? 0 : 1);
                now[at] = Math.min(change, Math.min(before[at], now[at - 1]) + 1);
            }
            int[] swap = before;
            before = now;
            now = swap;
        }
        return before[other.length()];
    }

    static String search(Map<String, String> query) {
        Pattern pattern = Pattern.compile("\\b(" + Pattern.quote(query.getOrDefault("q", "red")) + "|warm)\\b.*?(\\d{2})\\d*$");
        List<String> found = new ArrayList<>();
        for (Product product : CATALOGUE) {
            Matcher matcher = pattern.matcher(product.description);
            if (matcher.find()) {
                found.add(matcher.group(2) + ":" + product.name.replaceAll("[^a-z0-9]+", "-"));
            }
        }
        Collections.sort(found);
        return String.join("\n", found);
    }

    static String cart(HttpExchange exchange) throws IOException {
        String body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
        Matcher items = Pattern.compile("\"id\"\\s*:\\s*(\\d+)\\s*,\\s*\"n\"\\s*:\\s*(\\d+)").matcher(body);
        BigDecimal total = BigDecimal.ZERO;
        StringBuilder lines = new StringBuilder();
        while (items.find()) {
            Product product = CATALOGUE.get(Integer.parseInt(items.group(1)) % PRODUCTS);
            BigDecimal price = product.price.multiply(new BigDecimal(items.group(2)))
                .multiply(new BigDecimal("1.19")).setScale(2, RoundingMode.HALF_UP);
            total = total.add(price);
            lines.append(String.format(Locale.ROOT, "%s x %s = %s%n", product.name, items.group(2), price));
        }
        return lines.append("total ").append(total).toString();
    }

    static String report() {
        Map<String, Map<Integer, Double>> sums = CATALOGUE.stream().collect(Collectors.groupingBy(Product::getCategory,
            TreeMap::new, Collectors.groupingBy(product -> product.since.getYear(), TreeMap::new,
                Collectors.averagingDouble(product -> product.price.doubleValue()))));
        StringBuilder text = new StringBuilder();
        sums.forEach((category, years) -> years.forEach((year, mean) ->
            text.append(category).append(' ').append(year).append(' ').append(Math.round(mean * 100) / 100.0).append('\n')));
        return text.toString();
    }

    static String login(Map<String, String> query) throws GeneralSecurityException {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec("not a secret".getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
        byte[] key = query.getOrDefault("user", "nobody").getBytes(StandardCharsets.UTF_8);
        for (int round = 0; round < 200; round++) {
            key = mac.doFinal(key);
        }
        return Base64.getUrlEncoder().encodeToString(key);
    }

    static String export(Map<String, String> query) {
        StringBuilder text = new StringBuilder();
        DateTimeFormatter format = DateTimeFormatter.ofPattern("EEE, d MMM uuuu", Locale.ENGLISH);
        for (Product product : CATALOGUE) {
            if (product.id % 4 == 0) {
                text.append(String.join(";", product.name, product.category, product.price.toPlainString(),
                    product.since.format(format))).append('\n');
            }
        }
        return text.toString();
    }
}
