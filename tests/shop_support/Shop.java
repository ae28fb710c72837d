// A small shop on the JDK's own HTTP server: what an answer costs is a matter of compiled code. It notes every request
// in a ledger before it answers: who asked, the status, the path, and the thread's own CPU time in microseconds.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Executors;

public final class Shop {
    record Product(int id, String name, String colour, long cents) {}

    static final String[] NAMES = {"shoes", "hats", "coats", "gloves"};
    static final String[] COLOURS = {"red", "green", "blue", "black", "white"};
    static final ThreadMXBean CPU = ManagementFactory.getThreadMXBean();

    public static void main(String[] words) throws IOException {
        var ledger = Path.of(words[1]);
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(words[0])), 128);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/healthz", exchange -> send(exchange, 200, "ok\n"));
        server.createContext("/", exchange -> {
            var begun = CPU.getCurrentThreadCpuTime();
            var body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
            var answer = answer(exchange.getRequestURI().toString(), body);
            var status = answer == null ? 404 : 200;
            var micros = (CPU.getCurrentThreadCpuTime() - begun) / 1000;
            var agent = String.valueOf(exchange.getRequestHeaders().getFirst("User-Agent"));
            var line = "%s %d %s %d\n".formatted(
                    agent.startsWith("boathook/") ? "warm" : "user", status, exchange.getRequestURI(), micros);
            synchronized (ledger) {
                Files.writeString(ledger, line, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
            }
            send(exchange, status, answer == null ? "no such page\n" : answer);
        });
        server.start();
    }

    static String answer(String path, String body) {
        if (path.startsWith("/products")) {
            return list(catalogue(number(path)), Comparator.comparing(Product::name).thenComparing(Product::cents));
        }
        if (path.startsWith("/search")) {
            var wanted = path.substring(path.indexOf('=') + 1);
            var found = catalogue(7).stream().filter(product -> product.name().contains(wanted)).toList();
            return list(found, Comparator.comparing(Product::cents));
        }
        if (path.equals("/price")) {
            var product = catalogue(number(body)).get(0);
            return "{\"cents\":" + product.cents() + "}\n";
        }
        return null;
    }

    static int number(String text) {
        var digits = text.replaceAll("[^0-9]", "");
        return digits.isEmpty() ? 0 : Integer.parseInt(digits);
    }

    static List<Product> catalogue(int page) {
        var products = new ArrayList<Product>();
        for (var id = page * 100; id < page * 100 + 100; id++) {
            var name = NAMES[id % NAMES.length] + " number " + id;
            products.add(new Product(id, name, COLOURS[id % COLOURS.length], 100L * Math.abs(name.hashCode() % 977)));
        }
        return products;
    }

    static String list(List<Product> products, Comparator<Product> order) {
        Map<String, List<Product>> shelves = new TreeMap<>();
        for (var product : products) {
            shelves.computeIfAbsent(product.colour(), colour -> new ArrayList<>()).add(product);
        }
        var text = new StringBuilder("{");
        shelves.forEach((colour, shelf) -> {
            shelf.sort(order);
            text.append('"').append(colour).append("\":[");
            for (var product : shelf) {
                text.append("{\"id\":").append(product.id()).append(",\"name\":\"").append(product.name())
                        .append("\",\"cents\":").append(product.cents()).append("},");
            }
            text.append("null],");
        });
        return text.append("\"end\":null}\n").toString();
    }

    static void send(HttpExchange exchange, int status, String text) throws IOException {
        var bytes = text.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(status, bytes.length);
        try (var body = exchange.getResponseBody()) {
            body.write(bytes);
        }
    }
}
