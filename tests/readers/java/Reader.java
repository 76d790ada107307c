import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.message.BinaryMessageDecoder;
import org.apache.avro.message.SchemaStore;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Reads a topic from its beginning to the end that it has now, and prints each record as a line of
 * JSON. Knows nothing of the program that wrote them but this: values are Avro single objects.
 *
 * <pre>
 * Reader BOOTSTRAP TOPIC FOLDER                 schemas: all .avsc files of the folder
 * Reader BOOTSTRAP TOPIC SCHEMA.avsc CATALOG    schemas: those that the topic CATALOG publishes, in
 *                                               records of the schema in the file
 * </pre>
 */
public final class Reader {
    private final String bootstrap;
    private final SchemaStore.Cache schemas = new SchemaStore.Cache();
    private final ObjectMapper json = new ObjectMapper();

    private Reader(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] args) throws IOException {
        Reader reader = new Reader(args[0]);
        if (args.length == 3) {
            reader.takeSchemasFrom(Path.of(args[2]));
        } else {
            reader.takeSchemasFrom(args[3], reader.parsed(Path.of(args[2])));
        }
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        reader.read(args[1], record -> out.println(reader.line(record)));
        out.flush();
    }

    private void takeSchemasFrom(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            files.filter(file -> file.toString().endsWith(".avsc"))
                .forEach(file -> schemas.addSchema(parsed(file)));
        }
    }

    private void takeSchemasFrom(String catalog, Schema publishing) {
        schemas.addSchema(publishing);
        read(catalog, record -> {
            // The header lets a reader pass over what it has no schema for yet.
            byte[] type = record.headers().lastHeader("ce_type").value();
            if (publishing.getName().equals(new String(type, StandardCharsets.UTF_8))) {
                String published = decoded(record.value()).get("schema_json").toString();
                schemas.addSchema(new Schema.Parser().parse(published));
            }
        });
    }

    private Schema parsed(Path file) {
        try {
            return new Schema.Parser().parse(file.toFile());
        } catch (IOException error) {
            throw new IllegalArgumentException(file + " is not a schema", error);
        }
    }

    private GenericRecord decoded(byte[] value) {
        try {
            return new BinaryMessageDecoder<GenericRecord>(GenericData.get(), null, schemas)
                .decode(value);
        } catch (IOException error) {
            throw new IllegalArgumentException("not a single object of a known schema", error);
        }
    }

    private String line(ConsumerRecord<String, byte[]> record) {
        GenericRecord event = decoded(record.value());
        ObjectNode line = json.createObjectNode();
        line.put("topic", record.topic());
        line.put("partition", record.partition());
        line.put("offset", record.offset());
        line.put("timestamp_ms", record.timestamp());
        line.put("key", record.key());
        line.put("type", event.getSchema().getName());
        line.put("event_id", ((GenericRecord) event.get("envelope")).get("event_id").toString());
        ObjectNode headers = line.putObject("headers");
        record.headers().forEach(
            header -> headers.put(header.key(), new String(header.value(), StandardCharsets.UTF_8)));
        try {
            line.set("event", json.readTree(GenericData.get().toString(event)));
            return json.writeValueAsString(line);
        } catch (IOException error) {
            throw new IllegalStateException("Avro wrote no JSON", error);
        }
    }

    private void read(String topic, Consumer<ConsumerRecord<String, byte[]>> take) {
        Properties options = new Properties();
        options.put("bootstrap.servers", bootstrap);
        options.put("enable.auto.commit", "false");
        try (KafkaConsumer<String, byte[]> consumer = new KafkaConsumer<>(
            options, new StringDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
                .map(info -> new TopicPartition(topic, info.partition())).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (ends.entrySet().stream().anyMatch(e -> consumer.position(e.getKey()) < e.getValue())) {
                consumer.poll(Duration.ofSeconds(1)).forEach(take);
            }
        }
    }
}
